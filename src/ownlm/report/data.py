"""The corpus of a run in a few rows: what was read, kept, split and tokenized."""

from __future__ import annotations

from typing import Any

from ownlm.console.output import human_bytes, human_count
from ownlm.report.facts import metric_text
from ownlm.report.log import number, records


def corpus_rows(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """(what, figure) rows of a corpus manifest; what it does not say is left out."""
    sources, tokenizer = _part(manifest, "sources"), _part(manifest, "tokenizer")
    splits, overlap = _part(manifest, "splits"), _part(manifest, "overlap")
    train, validation = _part(splits, "train"), _part(splits, "validation")
    rows = [
        ("files read", _integer(sources.get("files"))),
        ("bytes read", _bytes(sources.get("bytes"))),
        ("bytes not read", _bytes(sources.get("bytes_not_read"))),
        ("training", _split(train)),
        ("validation", _split(validation)),
        ("validation chosen", str(validation.get("rule") or "")),
        ("tokenizer", _tokenizer(tokenizer)),
        ("bytes a token", metric_text(tokenizer.get("bytes_per_token"))),
        ("vocabulary chosen", str(tokenizer.get("why") or "")),
    ]
    if overlap.get("share") is not None:
        share = overlap["share"]
        value = number(share.get("value") if isinstance(share, dict) else share)
        name = f"validation {overlap.get('ngram', 13)}-grams also in training"
        rows.append((name, f"{value:.2%}".replace("%", "\u00a0%") if value is not None else ""))
    return [(name, text) for name, text in rows if text not in ("", "–")]


def corpus_steps(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps of preparation, each with `why`: the reasons for what it dropped, and how often."""
    shown = []
    for step in records(manifest, "steps"):
        dropped = _part(step, "dropped")
        reasons = ", ".join(f"{reason}: {_integer(count) or count}" for reason, count in dropped.items())
        shown.append({**step, "why": reasons or "–"})
    return shown


def _part(content: dict[str, Any], name: str) -> dict[str, Any]:
    part = content.get(name)
    return part if isinstance(part, dict) else {}


def _split(split: dict[str, Any]) -> str:
    documents, size, tokens = split.get("documents"), number(split.get("bytes")), number(split.get("tokens"))
    word = "document" if documents == 1 else "documents"
    parts = [f"{_integer(documents)} {word}" if _integer(documents) else ""]
    parts += [
        human_bytes(size) if size is not None else "",
        f"{human_count(tokens)} tokens" if tokens else "",
    ]
    return ", ".join(part for part in parts if part)


def _tokenizer(tokenizer: dict[str, Any]) -> str:
    if not tokenizer:
        return ""
    return f"{tokenizer.get('type', '')}, {_integer(tokenizer.get('vocab_size')) or '?'} tokens"


def _integer(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else ""


def _bytes(value: object) -> str:
    size = number(value)
    return human_bytes(size) if size is not None else ""
