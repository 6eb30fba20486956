"""adapter_config.json as the library PEFT writes it: to and from `LoraSettings`.

A field that would change what is computed is read, or refused by name; never ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ownlm.console.errors import Refused, UsageError
from ownlm.json_files import read_object
from ownlm.model.lora import LoraSettings, is_ending

CONFIG = "adapter_config.json"
MAX_BYTES = 4 * 2**20
MOST_PATTERNS = 20_000

# Read below, or without effect on a trained adapter: names, versions, how training began, which layers were chosen
# (the stored matrices say that).
_KNOWN = frozenset(
    """
    peft_type base_model_name_or_path r lora_alpha use_rslora lora_dropout target_modules modules_to_save rank_pattern
    alpha_pattern bias init_lora_weights revision task_type auto_mapping peft_version inference_mode exclude_modules
    fan_in_fan_out megatron_core layers_to_transform layers_pattern eva_config runtime_config qalora_group_size
    ensure_weight_tying
    """.split()  # noqa: SIM905 - a column of quotes would hide the words
)
_NOTHING: tuple[Any, ...] = (None, False, "", [], {})
# The others (pissa, olora, corda, loftq, lora_ga) change the base's weights before training.
_HARMLESS_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
# Letters and dots, and of regular expressions what cannot take long: no repetition but `.*`, and that twice.
_PATTERN = re.compile(r"(?:[\w.\-^$|()\[\]\\]|\.\*)+")


class AdapterConfig(NamedTuple):
    """What an adapter_config.json says.

    Args:
        base: folder or name on the hub of the model that it changes; "" when it says none.
        revision: of that model on the hub; "" when it says none.
        task_type: PEFT's word for the kind of model: CAUSAL_LM, SEQ_CLS, TOKEN_CLS, QUESTION_ANS; "" for others.
        modules: names of modules that are stored whole: task heads.
        settings: ranks and alphas hold patterns, as in the file; see `for_layers`.
    """

    base: str
    revision: str
    task_type: str
    modules: tuple[str, ...]
    settings: LoraSettings

    def for_layers(self, names: Iterable[str]) -> LoraSettings:
        """The settings with the r and alpha of each layer that has its own.

        Args:
            names: Hugging Face names of layers.
        """
        given, listed = self.settings, list(names)
        return LoraSettings(
            r=given.r,
            alpha=given.alpha,
            dropout=given.dropout,
            rslora=given.rslora,
            target_modules=given.target_modules,
            ranks={name: r for name in listed if (r := _matching(given.ranks, name)) is not None},
            alphas={name: a for name in listed if (a := _matching(given.alphas, name)) is not None},
        )


def _matching(patterns: Mapping[str, Any], name: str) -> Any:
    """The value of the first pattern that a name ends with, as PEFT looks it up."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return None


def read_adapter_config(folder: Path) -> AdapterConfig:
    """The adapter_config.json of a folder.

    Raises:
        UsageError: there is none. Refused: it is damaged, or of another method than low-rank adapters as they are
            built in, by name.
    """
    where = folder / CONFIG
    try:
        content = read_object(where, MAX_BYTES)
    except FileNotFoundError:
        raise UsageError("no adapter here: adapter_config.json is missing.", where=folder) from None
    kind = content.get("peft_type")
    if kind != "LORA":
        raise Refused(f"an adapter of the kind {str(kind)[:40]!r}; LORA is read.", where=where)
    _refuse_others(content, where)
    targets = content.get("target_modules")
    if targets is not None and not isinstance(targets, str) and not _strings(targets):
        raise _wrong("target_modules", targets, "a list of names", where)
    modules = content.get("modules_to_save") or []
    if not _strings(modules):
        raise _wrong("modules_to_save", modules, "a list of names", where)
    try:
        settings = LoraSettings(
            r=int(_number(content, "r", 8, where)),
            alpha=_number(content, "lora_alpha", 8, where),
            dropout=_number(content, "lora_dropout", 0.0, where),
            rslora=bool(content.get("use_rslora")),
            target_modules=targets if isinstance(targets, str) else tuple(targets or ()),
            ranks={name: int(r) for name, r in _patterns(content, "rank_pattern", where).items()},
            alphas=_patterns(content, "alpha_pattern", where),
        )
    except UsageError as error:
        raise Refused(error.what, where=f"{where}: {error.where}") from None
    return AdapterConfig(
        base=str(content.get("base_model_name_or_path") or ""),
        revision=str(content.get("revision") or ""),
        task_type=str(content.get("task_type") or ""),
        modules=tuple(modules),
        settings=settings,
    )


def _refuse_others(content: Mapping[str, Any], where: Path) -> None:
    bias, start = content.get("bias", "none"), content.get("init_lora_weights")
    if bias not in ("none", None):
        raise Refused(f"bias={bias!r} is not supported: biases of the base are not replaced.", where=where)
    if not any(start is known or (isinstance(start, str) and start == known) for known in _HARMLESS_STARTS):
        raise Refused(
            f"init_lora_weights={str(start)[:40]!r} is not supported.",
            where=where,
            why="It changed the base's weights before training, so the adapter does not fit the base as it is.",
            do="peft's own conversion to a plain adapter (path_initial_model_for_weight_conversion)",
        )
    for name, value in content.items():
        if name not in _KNOWN and value not in _NOTHING:
            raise Refused(
                f"{name}={str(value)[:60]} is not supported.",
                where=where,
                why="It may change what the adapter computes, so it is not ignored.",
                do="merge it with peft: PeftModel.from_pretrained(…).merge_and_unload().save_pretrained(DST)",
            )


def _number(content: Mapping[str, Any], name: str, default: float, where: object) -> float:
    value = content.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e30:
        raise _wrong(name, value, "a number", where)
    if name == "r" and value != int(value):
        raise _wrong(name, value, "a whole number", where)
    return value


def _patterns(content: Mapping[str, Any], name: str, where: object) -> dict[str, Any]:
    """rank_pattern or alpha_pattern."""
    found = content.get(name) or {}
    if not isinstance(found, dict) or len(found) > MOST_PATTERNS:
        raise _wrong(name, found, "an object", where)
    for pattern in found:
        simple = len(pattern) <= 300 and pattern.count(".*") <= 2 and _PATTERN.fullmatch(pattern)
        try:
            re.compile(pattern if simple else "(")
        except re.error:
            raise Refused(
                f"{name} holds {pattern[:60]!r}, which is not read.",
                where=where,
                why="Names of layers, dots, alternatives and `.*` are.",
            ) from None
    numbers = {pattern: _number(found, pattern, 0, where) for pattern in found}
    for pattern, value in numbers.items():
        if name == "rank_pattern" and value != int(value):
            raise _wrong(f"{name} {pattern}", value, "a whole number", where)
    return numbers


def _strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _wrong(name: str, value: object, wanted: str, where: object) -> Refused:
    return Refused(f"{name} is {str(value)[:60]!r}; {wanted} is expected.", where=where)


def adapter_config(
    settings: LoraSettings,
    *,
    chosen: Iterable[str],
    names: Iterable[str],
    base: str,
    task_type: str | None,
    modules: Iterable[str],
    stored_transposed: bool,
) -> dict[str, Any]:
    """The content of an adapter_config.json that PEFT reads.

    Args:
        chosen: Hugging Face names of the layers that have matrices. names: of all linear layers of the blocks.
        base: folder or name of the base. task_type: see `AdapterConfig`.
        modules: names of modules that are stored whole.
        stored_transposed: the family stores its matrices [in, out] (GPT-2).
    """
    return {
        "peft_type": "LORA",
        "task_type": task_type,
        "base_model_name_or_path": base,
        "revision": None,
        "inference_mode": True,
        "r": settings.r,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "use_rslora": settings.rslora,
        "target_modules": endings(list(chosen), list(names)),
        "modules_to_save": list(modules) or None,
        "rank_pattern": dict(settings.ranks),
        "alpha_pattern": dict(settings.alphas),
        "bias": "none",
        "fan_in_fan_out": stored_transposed,
        "init_lora_weights": True,
        "use_dora": False,
    }


def endings(chosen: list[str], names: list[str]) -> list[str]:
    """The shortest endings of names that mean the chosen layers and no others.

    "dense" alone would also mean poolers and heads, which are not among `names`.
    """
    others = set(names) - set(chosen)
    found: set[str] = set()
    for name in chosen:
        if any(is_ending(name, ending) for ending in found):
            continue
        parts = name.split(".")
        for count in range(1, len(parts) + 1):
            ending = ".".join(parts[-count:])
            if ending != "dense" and not any(is_ending(one, ending) for one in others):
                found.add(ending)
                break
    return sorted(found)
