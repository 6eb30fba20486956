"""llama2.c's `.bin` files as Hugging Face folders: the legacy layout (version 0) of karpathy/llama2.c `export.py`.

Seven int32 (dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len; a negative vocab_size says that the
head is its own matrix), then fp32 weights: embedding; for all layers together attention norms, wq, wk, wv, wo, MLP
norms, w1 (gate), w2 (down), w3 (up); final norm; two rotary tables, which are computed anew; the head when it is
not the embedding.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ownlm.console.errors import Refused
from ownlm.model.checkpoint import FP32_LIMIT, SHARD_BYTES, write_json, write_weights
from ownlm.model.config import ModelConfig
from ownlm.model.families import FAMILIES, to_hugging_face

HEADER = 7 * 4
MAGIC = 0x616B3432  # "ak42" begins the later versions, whose layout is another one
UNK, BOS, EOS = 0, 1, 2


def read_header(file: Path) -> ModelConfig:
    """The model that a `.bin` file holds.

    Raises:
        Refused: another version, numbers that make no model, a file that is shorter or longer than they say.
    """
    with file.open("rb") as stream:
        head = stream.read(HEADER)
    if len(head) < HEADER or struct.unpack("<I", head[:4])[0] == MAGIC:
        raise Refused("not a version 0 file of llama2.c.", where=file, do="export it again with --version 0")
    width, inner, layers, heads, kv_heads, vocabulary, context = struct.unpack("<7i", head)
    try:
        config = ModelConfig(
            architecture="llama",
            vocab_size=abs(vocabulary),
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=width // max(heads, 1),
            intermediate_size=inner,
            max_position_embeddings=context,
            norm_eps=1e-5,
            tie_word_embeddings=vocabulary > 0,
            **FAMILIES["llama"].fixed,
        )
    except Exception as error:
        raise Refused(f"not a file of llama2.c: {error}", where=file) from None
    expected = HEADER + 4 * sum(math.prod(shape) for _, shape in layout(config))
    if file.stat().st_size != expected:
        raise Refused(
            f"has {file.stat().st_size:,} bytes, its header asks for {expected:,}.",
            where=file,
            why="The file is cut off, or not one of llama2.c.",
        )
    return config


def layout(config: ModelConfig) -> list[tuple[str, tuple[int, ...]]]:
    """(name, shape) of the file's blocks in their order; layers come first in the shapes."""
    layers, width, inner = config.num_hidden_layers, config.hidden_size, config.intermediate_size
    query, kv = config.query_width, config.key_value_width
    table = (config.max_position_embeddings, config.head_dim // 2)
    return [
        ("embed_tokens", (config.vocab_size, width)),
        ("input_layernorm", (layers, width)),
        ("self_attn.q_proj", (layers, query, width)),
        ("self_attn.k_proj", (layers, kv, width)),
        ("self_attn.v_proj", (layers, kv, width)),
        ("self_attn.o_proj", (layers, width, query)),
        ("post_attention_layernorm", (layers, width)),
        ("mlp.gate_proj", (layers, inner, width)),
        ("mlp.down_proj", (layers, width, inner)),
        ("mlp.up_proj", (layers, inner, width)),
        ("norm", (width,)),
        ("cos", table),
        ("sin", table),
        *([] if config.tie_word_embeddings else [("lm_head", (config.vocab_size, width))]),
    ]


def convert(file: Path, target: Path, dtype: str | None, shard_bytes: int = SHARD_BYTES) -> ModelConfig:
    """Write a `.bin` file as a Hugging Face folder (without a tokenizer).

    Args:
        target: an existing, empty folder.
        dtype: float32, bfloat16, float16; None: float32, as the file has it (bfloat16 above 350M parameters).
    """
    from ownlm.export.rewrite import DTYPES

    config = read_header(file)
    wanted = DTYPES[dtype or ("float32" if config.num_parameters() <= FP32_LIMIT else "bfloat16")]
    mapped = np.memmap(file, np.dtype("<f4"), "r", HEADER)
    places: dict[str, tuple[int, tuple[int, ...]]] = {}
    start = 0
    for name, shape in layout(config):
        size = math.prod(shape)
        if len(shape) == 1 or name in ("embed_tokens", "lm_head"):
            places["lm_head.weight" if name == "lm_head" else f"model.{name}.weight"] = (start, shape)
        elif name not in ("cos", "sin"):
            for layer in range(shape[0]):
                one = size // shape[0]
                places[f"model.layers.{layer}.{name}.weight"] = (start + layer * one, shape[1:])
        start += size

    def read(name: str) -> Tensor:
        begin, shape = places[name]
        tensor = torch.from_numpy(np.array(mapped[begin : begin + math.prod(shape)])).view(shape)
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            tensor = half_split(tensor, config.head_dim)
        return tensor.to(wanted)

    write_weights(
        target, {n: math.prod(s) * wanted.itemsize for n, (_, s) in places.items()}, read, shard_bytes
    )
    # The training texts followed each other with <s> between them: it ends a text too.
    write_json(target / "generation_config.json", {"bos_token_id": BOS, "eos_token_id": [BOS, EOS]})
    ids = {"bos_token_id": BOS, "eos_token_id": EOS}
    write_json(
        target / "config.json",
        to_hugging_face(config, ids) | {"dtype": str(wanted).removeprefix("torch.")},
    )
    return config


def half_split(matrix: Tensor, head_dim: int) -> Tensor:
    """Rows of a head from pairs (0, 1), (2, 3), … to pairs (i, i + D/2): the order in which rotary positions turn."""
    return matrix.view(-1, head_dim // 2, 2, matrix.shape[1]).transpose(1, 2).reshape(matrix.shape)


def read_pieces(file: Path, size: int) -> list[tuple[bytes, float]]:
    """(bytes, score) of each token of a `tok*.bin`: max length; then score, length, bytes of each.

    Raises:
        Refused: the file is cut off or holds another number of tokens.
    """
    data = file.read_bytes()
    pieces, at = [], 4
    while at < len(data):
        if at + 8 > len(data):
            break
        score, length = struct.unpack_from("<fi", data, at)
        if not 0 <= length <= len(data) - at - 8:
            break
        pieces.append((data[at + 8 : at + 8 + length], score))
        at += 8 + length
    if at != len(data) or len(pieces) != size:
        raise Refused(
            f"not the tokenizer of this model: {len(pieces):,} whole tokens, the model has {size:,}.",
            where=file,
        )
    return pieces


def find_tokenizer(file: Path) -> Path | None:
    """The tokenizer beside a `.bin` file: the only tok*.bin or tokenizer.bin, or a tokenizer.model."""
    found = [path for path in sorted(file.parent.glob("tok*.bin")) if path != file]
    if len(found) == 1:
        return found[0]
    model = file.with_name("tokenizer.model")
    return model if model.is_file() and not found else None


def write_tokenizer(file: Path, config: ModelConfig, target: Path) -> None:
    """`tokenizer.json` and `tokenizer_config.json` from a `tok*.bin` or a sentencepiece `tokenizer.model`."""
    from ownlm.corpus.sentencepiece import Piece, PieceKind, read_model, tokenizer_files

    if file.suffix == ".model":
        pieces = read_model(file).pieces
        if len(pieces) != config.vocab_size:
            raise Refused(f"has {len(pieces):,} tokens, the model {config.vocab_size:,}.", where=file)
    else:
        kinds = {UNK: PieceKind.UNKNOWN, BOS: PieceKind.CONTROL, EOS: PieceKind.CONTROL}
        names = {UNK: "<unk>", BOS: "<s>", EOS: "</s>"}
        pieces = []
        for index, (data, score) in enumerate(read_pieces(file, config.vocab_size)):
            text = names.get(index) or data.decode("utf-8", "replace").replace(" ", "\u2581")
            byte = 3 <= index < 3 + 256 and text == f"<0x{index - 3:02X}>"
            kind = PieceKind.BYTE if byte else kinds.get(index, PieceKind.NORMAL)
            pieces.append(Piece(text, score, kind))
    tokenizer_files(pieces, target)
