"""Small random models of architectures that are not built in, with a tokenizer each, saved by transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

VOCABULARY, SMALL_VOCABULARY, WINDOW = 400, 100, 64
TEXT = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps.",
    "A river runs to the sea. Rain falls on the hills, and the river runs again.",
    "Where does the river run? To the sea, says the fox.",
]
PROMPTS = ["The quick brown", "A river", "Where does the fox run to"]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
_IDS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    **_IDS,
}
_MLP = {"intermediate_size": 48, "max_position_embeddings": WINDOW}
_BART = {
    "vocab_size": VOCABULARY, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": WINDOW,
    "forced_eos_token_id": None, **_IDS,
}  # fmt: skip


def _config(kind: str, **fields: Any) -> Any:
    return getattr(transformers, kind)(**fields)


# Rotary, ALiBi, learned with an offset, no positions with a recurrent state, a capped head, no cache at all.
CAUSAL = {
    "gpt_neox": lambda: _config("GPTNeoXConfig", **_SHAPE, **_MLP),
    "bloom": lambda: _config("BloomConfig", vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4,
                             seq_length=WINDOW, **_IDS),
    "opt": lambda: _config("OPTConfig", **_SHAPE, ffn_dim=48, max_position_embeddings=WINDOW, word_embed_proj_dim=16),
    "mamba": lambda: _config("MambaConfig", vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=8,
                             **_IDS),
    "gemma2": lambda: _config("Gemma2Config", **_SHAPE, **_MLP, num_key_value_heads=2, head_dim=8, sliding_window=8,
                              final_logit_softcapping=2.0),
    "openai-gpt": lambda: _config("OpenAIGPTConfig", vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4,
                                  n_positions=WINDOW),
}  # fmt: skip
SEQ2SEQ = {
    "bart": lambda: _config("BartConfig", **_BART, decoder_start_token_id=2),
    "t5": lambda: _config("T5Config", vocab_size=SMALL_VOCABULARY, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
                          decoder_start_token_id=1, **_IDS),
}  # fmt: skip
_OPENERS = {
    **dict.fromkeys(CAUSAL, "AutoModelForCausalLM"),
    **dict.fromkeys(SEQ2SEQ, "AutoModelForSeq2SeqLM"),
}


def build(
    config: Any,
    folder: Path,
    tokenizer: tokenizers.Tokenizer,
    opener: str,
    spread: float = 0.1,
    seed: int = 3,
) -> Any:
    """A random model in eval mode, saved with a tokenizer; weights far from their flat start."""
    torch.manual_seed(seed)
    model = getattr(transformers, opener).from_config(config).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * spread)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "mask_token": "<mask>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return model


def build_form(form: str, folder: Path) -> Any:
    """One of the forms above with the kind of tokenizer that such models have."""
    if form in CAUSAL:
        return build(CAUSAL[form](), folder, byte_level(), _OPENERS[form])
    tokenizer = byte_level("<s> $A </s>") if form == "bart" else sentencepiece()
    # The same seed gives other weights on another processor, and some models end every answer at once.
    for seed in range(3, 60):
        model = build(SEQ2SEQ[form](), folder, tokenizer, _OPENERS[form], spread=0.6, seed=seed)
        if _answers_differ(model, tokenizer):
            return model
    raise AssertionError(f"no seed gives a {form} with several answers")


def _answers_differ(model: Any, tokenizer: tokenizers.Tokenizer) -> bool:
    """Whether the prompts get answers that are not all the same, none of them empty."""
    answers = set()
    for prompt in PROMPTS:
        ids = torch.tensor([tokenizer.encode(prompt).ids])
        found = model.generate(
            ids, do_sample=False, num_beams=1, max_new_tokens=20, eos_token_id=2, pad_token_id=1
        )
        answers.add(tokenizer.decode(found[0, 1:].tolist()))
    return len(answers) > 1 and "" not in answers


def byte_level(around: str | None = None) -> tokenizers.Tokenizer:
    """GPT-2's kind, with what is put around a text."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    return _trained(tokenizer, trainer, around)


def sentencepiece(around: str = "$A </s>") -> tokenizers.Tokenizer:
    """T5's kind: a space before every word, one more in front of the text."""
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=SMALL_VOCABULARY, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )
    return _trained(tokenizer, trainer, around)


def wordpiece() -> tokenizers.Tokenizer:
    """BERT's kind."""
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=SPECIAL, show_progress=False)
    return _trained(tokenizer, trainer, "<s> $A </s>")


def _trained(tokenizer: Any, trainer: Any, around: str | None) -> tokenizers.Tokenizer:
    tokenizer.train_from_iterator(TEXT, trainer)
    if around is not None:
        special = [(token, SPECIAL.index(token)) for token in ("<s>", "</s>")]
        tokenizer.post_processor = processors.TemplateProcessing(single=around, special_tokens=special)
    return tokenizer


def their_tokens(model: Any, loaded: Any, prompt: str, tokens: int = 20, **options: Any) -> list[int]:
    """What `model.generate` adds greedily."""
    encodes = model.config.is_encoder_decoder
    ids = loaded.tokenizer.encode_whole(prompt).ids if encodes else loaded.tokenizer.encode_prompt(prompt)
    given = torch.tensor([ids])
    found = model.generate(
        given, attention_mask=torch.ones_like(given), do_sample=False, num_beams=1, max_new_tokens=tokens,
        eos_token_id=2, pad_token_id=1, **options,
    )  # fmt: skip
    return found[0, 1 if encodes else len(ids) :].tolist()


def their_text(model: Any, loaded: Any, prompt: str, **options: Any) -> str:
    """It as the tokenizers library decodes it, without half a character at its end."""
    text = loaded.tokenizer.backend.decode(their_tokens(model, loaded, prompt, **options))
    dropped = loaded.complete(prompt, temperature=0, max_new_tokens=20)[0].bytes_dropped
    return text[:-1] if dropped else text


@torch.no_grad()
def their_logprobs(model: Any, ids: list[int]) -> np.ndarray:
    """Log-softmax of the logits of one row, at the tokens from the second on."""
    row = torch.tensor([ids])
    logits = model(input_ids=row, attention_mask=torch.ones_like(row)).logits[0, :-1].double()
    return logits.log_softmax(-1).gather(-1, row[0, 1:, None])[:, 0].numpy()


@torch.no_grad()
def their_answer_logprob(model: Any, prompt: list[int], start: list[int], answer: list[int]) -> float:
    """Log-probability of an answer under an encoder-decoder model."""
    given, decoder = torch.tensor([prompt]), torch.tensor([[*start, *answer]])
    logits = model(input_ids=given, decoder_input_ids=decoder[:, :-1]).logits[0, len(start) - 1 :].double()
    return float(logits.log_softmax(-1).gather(-1, torch.tensor(answer)[:, None]).sum())
