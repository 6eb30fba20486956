"""Opening a folder with the library transformers: what is refused before, which class, what may be missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ownlm.console import output as out
from ownlm.console.errors import OwnlmError, Refused, UsageError
from ownlm.model.head_families import KINDS

if TYPE_CHECKING:
    from ownlm.corpus.tokenizer import Tokenizer

CAUSAL, SEQ2SEQ, MASKED = "causal", "seq2seq", "masked"
# How configs name the longest text, the first that is there counts.
WINDOWS = (
    "max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length", "max_sequence_length",
    "max_decoder_position_embeddings",
)  # fmt: skip
# Models without positions or with relative ones name none: T5 was trained with 512 tokens, Mamba with 2,048.
DEFAULT_WINDOW: dict[str, int] = {CAUSAL: 2048} | dict.fromkeys((SEQ2SEQ, MASKED, *KINDS), 512)
LONGEST_WINDOW = 10**8  # tokenizer_config.json says 10^30 for "no limit"


def refuse_code(content: Mapping[str, Any], where: Path) -> None:
    """A config may name Python files of its folder, or kernels of a hub: programs that nobody here has read.

    Where the architecture is part of transformers, the files are not needed: it is opened without them, and that
    is said.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    for name, value in _fields(content):
        if name == "auto_map" and value:
            if value is content.get(name) and content.get("model_type") in CONFIG_MAPPING_NAMES:
                out.say(f"{where}: auto_map names Python code; it is not run, transformers' own class is.")
                continue
            raise Refused(
                f"asks for Python code of its own ({str(value)[:100]}).",
                where=where,
                why="Code from elsewhere is never run here.",
                do="a model whose architecture is part of transformers",
            )
        if name.endswith("attn_implementation") and "/" in str(value):
            raise Refused(
                f"asks for attention code of a hub ({str(value)[:100]}).",
                where=where,
                why="Code from elsewhere is never run here.",
                do=f"remove {name} from the file",
            )
    adapter = where.with_name("adapter_config.json")
    if adapter.is_file():
        raise Refused(
            "an adapter beside a model that is not built in.",
            where=adapter,
            why="transformers would fetch the base model that this file names.",
            do="a folder with the merged model",
        )


def _fields(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every field of a config, those of inner configs too."""
    for name, value in content.items():
        yield name, value
        if isinstance(value, dict):
            yield from _fields(value)


def kind_of(content: Mapping[str, Any], where: Path) -> str:
    """Causal, encoder-decoder, masked, or a task head: by the class in config.json, else by transformers' own tables."""
    import transformers
    from transformers.models.auto import modeling_auto as auto

    tables: dict[str, Mapping[str, Any]] = {
        SEQ2SEQ: auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,  # first: BART's class is in the masked table too
        CAUSAL: auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MASKED: auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        "sequence-classification": auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        "token-classification": auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
        "question-answering": auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
    }
    names = content.get("architectures")
    name = str(names[0]) if isinstance(names, list) and names else None
    for kind, table in tables.items():
        if name in _classes(table):
            return kind
    model_type = content.get("model_type")
    if name is None or name in _classes(
        auto.MODEL_MAPPING_NAMES
    ):  # weights without a head; what is tied may do
        encodes = bool(content.get("is_encoder_decoder"))
        for kind in (SEQ2SEQ, CAUSAL, MASKED):
            if model_type in tables[kind] and encodes == (kind == SEQ2SEQ):
                return kind
    if model_type not in auto.CONFIG_MAPPING_NAMES:
        raise Refused(
            f'transformers {transformers.__version__} does not know the architecture "{model_type}" either.',
            where=where,
            do="pip install --upgrade transformers",
        )
    raise Refused(
        f'"{name or model_type}" is not a language model that reads and writes text.',
        where=where,
        why="Causal, encoder-decoder and masked language models can be used, and those with a task head.",
    )


def _classes(table: Mapping[str, Any]) -> set[str]:
    """Names of classes in a table of transformers; some rows hold several."""
    return {name for row in table.values() for name in ([row] if isinstance(row, str) else row)}


def open_model(path: Path, kind: str, dtype: torch.dtype, device: str) -> Any:
    """The model of transformers in eval mode on its device; refused when it is not whole."""
    import transformers

    opener = {
        CAUSAL: transformers.AutoModelForCausalLM,
        SEQ2SEQ: transformers.AutoModelForSeq2SeqLM,
        MASKED: transformers.AutoModelForMaskedLM,
        "sequence-classification": transformers.AutoModelForSequenceClassification,
        "token-classification": transformers.AutoModelForTokenClassification,
        "question-answering": transformers.AutoModelForQuestionAnswering,
    }[kind]
    try:
        model, found = opener.from_pretrained(
            path,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
        model = model.to(device).eval()
    except (OwnlmError, MemoryError):
        raise
    except Exception as error:  # the library raises whatever its many parts raise
        if "out of memory" in str(error) or "can't allocate memory" in str(error):
            raise
        text = " ".join(str(error).split())[:300]
        raise Refused(
            f"transformers {transformers.__version__} cannot open it: {type(error).__name__}: {text}",
            where=path,
            do="the same command with --debug shows where",
        ) from error
    missing = sorted(found["missing_keys"])
    if missing:  # the library would go on with random numbers
        raise Refused(f"{len(missing)} missing weights, first: {missing[0]}.", where=path)
    unused = sorted(found["unexpected_keys"])
    if unused:
        out.warn(f"{path}: {len(unused)} stored weights are not used, first: {unused[0]}.")
    return model


@contextmanager
def silence() -> Iterator[None]:
    """Without the library's bars and reports: what matters in them is said by us."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def window(config: Any, tokenizer: Tokenizer, kind: str, max_context: int | None) -> tuple[int, str]:
    """(tokens of the window, what to say about it)."""
    text = config.get_text_config()
    given = [getattr(text, name, None) for name in WINDOWS]
    named = [value for value in given if isinstance(value, int) and 1 < value < LONGEST_WINDOW]
    if named:
        if max_context is not None and not 1 < max_context <= named[0]:
            raise UsageError(
                f"a context of {max_context:,} tokens; this model was made for {named[0]:,}.",
                where="max_context",
                do=f"max_context between 2 and {named[0]}",
            )
        return max_context or named[0], ""
    limit = tokenizer.config.get("model_max_length")
    if max_context is not None:
        tokens, source = max_context, "max_context"
    elif isinstance(limit, int) and 1 < limit < LONGEST_WINDOW:
        tokens, source = limit, "tokenizer_config.json"
    else:
        tokens, source = DEFAULT_WINDOW[kind], "a usual length"
    return tokens, f" Its config names no longest text: {tokens:,} tokens are taken ({source})."


def positions(inner: Any) -> int | None:
    """Usable rows of a table of positions that starts behind the padding token's id, as RoBERTa's does; else None."""
    for name, module in inner.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            return None if module.padding_idx is None else module.num_embeddings - module.padding_idx - 1
    return None


def answer_prefix(inner: Any, path: Path) -> list[int]:
    """Ids that every answer starts with; they are not part of it."""

    def named(field: str) -> int | None:
        values = (getattr(source, field, None) for source in (inner.generation_config, inner.config))
        return next((value for value in values if isinstance(value, int)), None)

    start, forced = named("decoder_start_token_id"), named("forced_bos_token_id")
    if start is None:
        raise Refused(
            "no decoder_start_token_id: nothing says how an answer begins.", where=path / "config.json"
        )
    return [start] if forced is None else [start, forced]
