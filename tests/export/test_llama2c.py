"""llama2.c's files: a model written in their layout answers as it did, damaged ones are refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

import ownlm
from ownlm.cli import main
from ownlm.export.llama2c import convert, half_split
from ownlm.model.checkpoint import load_model

transformers = pytest.importorskip("transformers")
STORIES = Path(__file__).parents[3] / "shared" / "data" / "weights_stories260k"
SIZE, WIDTH, LAYERS, HEADS, KV_HEADS, INNER, CONTEXT = 300, 48, 3, 4, 2, 80, 32


def write_bin(model: torch.nn.Module, file: Path, tied: bool) -> None:
    """A transformers Llama as llama2.c's version 0 file."""
    weights = {name.removeprefix("model."): p.detach().float() for name, p in model.named_parameters()}
    head_dim = WIDTH // HEADS

    def pairs(matrix: torch.Tensor) -> torch.Tensor:
        """From halves (i, i + D/2) to neighbours (2i, 2i + 1)."""
        return matrix.view(-1, 2, head_dim // 2, WIDTH).transpose(1, 2).reshape(matrix.shape)

    size = SIZE if tied else -SIZE
    blocks = [weights["embed_tokens.weight"]]
    for name in ("input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                 "post_attention_layernorm", "mlp.gate_proj", "mlp.down_proj", "mlp.up_proj"):  # fmt: skip
        for layer in range(LAYERS):
            matrix = weights[f"layers.{layer}.{name}.weight"]
            blocks.append(pairs(matrix) if name in ("self_attn.q_proj", "self_attn.k_proj") else matrix)
    blocks += [weights["norm.weight"], torch.zeros(2, CONTEXT, head_dim // 2)]
    if not tied:
        blocks.append(weights["lm_head.weight"])
    header = struct.pack("<7i", WIDTH, INNER, LAYERS, HEADS, KV_HEADS, size, CONTEXT)
    file.write_bytes(
        header + b"".join(block.contiguous().numpy().astype("<f4").tobytes() for block in blocks)
    )


def write_tokens(file: Path) -> None:
    """A vocabulary of bytes, letters and a few merges, as `tok*.bin` has it."""
    tokens = [b"<unk>", b"\n<s>\n", b"\n</s>\n", *(f"<0x{byte:02X}>".encode() for byte in range(256))]
    letters = [bytes([byte]) for byte in b" etaoinshr"]
    merges = [b"th", b"he", b"in", b" t", b" th", b" the", b"the", b"re", b"er", b" a"]
    tokens += letters + merges
    tokens += [b"x" * (i + 2) for i in range(SIZE - len(tokens))]
    scores = [0.0] * 259 + [-1e9] * len(letters) + [-float(i) for i in range(SIZE - 259 - len(letters))]
    data = struct.pack("<i", max(map(len, tokens)))
    for token, score in zip(tokens, scores, strict=True):
        data += struct.pack("<fi", score, len(token)) + token
    file.write_bytes(data)


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def stored(request, tmp_path):
    """(transformers' model, its .bin file)."""
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=SIZE, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS, intermediate_size=INNER, max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-5, tie_word_embeddings=request.param, pad_token_id=0,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    write_bin(model, tmp_path / "model.bin", request.param)
    write_tokens(tmp_path / "tok300.bin")
    return model, tmp_path / "model.bin"


@torch.no_grad()
def test_the_same_logits_here_and_in_transformers(stored, tmp_path):
    model, file = stored
    done = ownlm.export(str(file), tmp_path / "out")
    assert done["tensors"] == len(dict(model.named_parameters()))
    ids = torch.randint(3, SIZE, (2, CONTEXT), generator=torch.Generator().manual_seed(1))
    expected = model(ids).logits
    torch.testing.assert_close(load_model(tmp_path / "out")(ids), expected, atol=1e-4, rtol=0)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    torch.testing.assert_close(again(ids).logits, expected, atol=1e-5, rtol=0)


def test_the_tokenizer_merges_by_score_and_is_lossless(stored, tmp_path):
    _, file = stored
    ownlm.export(str(file), tmp_path / "out")
    tokenizer = ownlm.load(tmp_path / "out").tokenizer
    text = " the rain 雨 on the hills"
    ids = tokenizer.encode(text).tolist()
    assert tokenizer.decode(ids) == text
    assert tokenizer.backend.id_to_token(ids[0]) in ("▁", "▁▁", "▁the")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs(text, add_special_tokens=False).input_ids == ids


def test_half_split_is_the_order_of_rotary_pairs():
    rows = torch.arange(2 * 8)[:, None] * torch.ones(1, 3, dtype=torch.long)
    assert half_split(rows, 8)[:, 0].tolist() == [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15]


def test_damaged_files(stored, tmp_path, capsys):
    _, file = stored
    data = file.read_bytes()
    for number, changed in enumerate(
        (b"", data[:20], data[:-4], data + b"\0" * 4, b"ak42"[::-1] + data[4:], struct.pack("<i", -5) + data[4:],
         data[:8] + struct.pack("<i", 10**9) + data[12:], data[:12] + struct.pack("<i", 0) + data[16:])
    ):  # fmt: skip
        file.write_bytes(changed)
        assert main(["export", str(file), str(tmp_path / f"out{number}")]) == 3
        assert str(file) in capsys.readouterr().err
        assert not (tmp_path / f"out{number}").exists()


def test_a_wrong_or_missing_tokenizer(stored, tmp_path, capsys):
    _, file = stored
    tokens = file.with_name("tok300.bin")
    data = tokens.read_bytes()
    tokens.write_bytes(data[:-3])
    assert main(["export", str(file), str(tmp_path / "a")]) == 3
    assert "tok300.bin" in capsys.readouterr().err
    tokens.unlink()
    assert main(["export", str(file), str(tmp_path / "b")]) == 2
    assert "--tokenizer" in capsys.readouterr().err


def test_nan_is_refused_when_it_is_opened(stored, tmp_path):
    from ownlm.console.errors import Refused

    _, file = stored
    values = np.memmap(file, np.dtype("<f4"), "r+", 28)
    values[5] = np.nan
    values.flush()
    (tmp_path / "out").mkdir()
    convert(file, tmp_path / "out", None)
    with pytest.raises(Refused, match="embed_tokens"):
        load_model(tmp_path / "out")


@pytest.mark.skipif(not STORIES.is_dir(), reason="needs shared/data/weights_stories260k beside the project")
def test_real_weights_write_upstreams_text_byte_for_byte(tmp_path, capsysbinary):
    assert main(["export", str(STORIES / "stories260K.bin"), str(tmp_path / "stories")]) == 0
    capsysbinary.readouterr()
    arguments = ["--temperature", "0", "--max-new-tokens", "200", "--completion-only", "-q"]
    assert main(["generate", str(tmp_path / "stories"), "", *arguments]) == 0
    written = capsysbinary.readouterr().out
    expected = (STORIES / "expected_greedy_200.txt").read_bytes()
    assert written.rstrip(b"\n") == expected.rstrip(b"\n")
