"""What `prepare` tells a person at the end: where every document and byte went."""

from __future__ import annotations

from typing import Any

from ownlm.console import output as out
from ownlm.console.output import human_bytes, human_count, human_seconds
from ownlm.corpus.normalise import KINDS
from ownlm.corpus.outcome import Outcome

SMALL_VALIDATION = 5000  # tokens; a loss over fewer is uncertain by several percent
MOST_REASONS = 8  # rows of a table; corpus.json has them all


def show(outcome: Outcome) -> None:
    """Print the closing tables and sentences of a corpus."""
    manifest = outcome.corpus.manifest
    if outcome.already:
        out.say(f"{outcome.corpus.path}: already prepared (same settings, unchanged sources).")
    out.table("Steps", ["step", "documents", "text", "what happened"], _steps(manifest), numeric=(1, 2))
    _not_read(manifest["sources"])
    for line in sentences(manifest):
        out.say(line)
    tokens, rule = (manifest["splits"]["validation"][key] for key in ("tokens", "rule"))
    if tokens < SMALL_VALIDATION and manifest["settings"]["validation"] != ["none"]:
        do = "More text helps" + ("." if "each document" in rule else ", or --validation tail:0.1.")
        out.warn(f"only {tokens:,} tokens of validation text: figures on it will be rough. {do}")
    if outcome.seconds:
        parts = ", ".join(f"{name} {human_seconds(seconds)}" for name, seconds in outcome.seconds.items())
        out.say(f"time        {human_seconds(sum(outcome.seconds.values()))}: {parts}")


def _steps(manifest: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    rows = []
    for step in manifest["steps"]:
        rows.append(
            (
                step["step"],
                _flow(f"{step['documents_in']:,}", f"{step['documents_out']:,}"),
                _flow(human_bytes(step["bytes_in"]), human_bytes(step["bytes_out"])),
                _happened(step),
            )
        )
    return rows


def _flow(before: str, after: str) -> str:
    return after if before == after else f"{before} → {after}"


def _happened(step: dict[str, Any]) -> str:
    dropped = [f"{count:,} dropped: {reason}" for reason, count in step["dropped"].items()]
    changed = [f"{count:,} × {KINDS.get(what, what)}" for what, count in step["changed"].items()]
    note = [step["note"]] if "note" in step else []
    lines = dropped + changed
    if len(lines) > MOST_REASONS:
        lines = [*lines[:MOST_REASONS], f"and {len(lines) - MOST_REASONS} more (corpus.json has them all)"]
    return "\n".join(lines + note)


def _not_read(sources: dict[str, Any]) -> None:
    total = sources["bytes"] + sources["bytes_not_read"]
    unread = [entry for entry in sources["not_read"] if not entry["by_rule"]]
    ruled = [entry for entry in sources["not_read"] if entry["by_rule"]]
    if unread:
        rows = [
            (entry["reason"], f"{entry['files']:,}", human_bytes(entry["bytes"]), _first(entry))
            for entry in unread[:MOST_REASONS]
        ]
        share = sources["bytes_not_read"] / max(total, 1)
        title = f"Not read: {share:.1%} of the bytes"
        out.table(
            title, ["reason", "files", "bytes", "the first, or what would read it"], rows, numeric=(1, 2)
        )
        if len(unread) > MOST_REASONS:
            out.say(f"and {len(unread) - MOST_REASONS} more reasons (corpus.json has them all)")
    else:
        out.say(f"not read    0% of {human_bytes(total)}")
    if ruled:
        names = "; ".join(f"{entry['files']:,} {entry['reason']}" for entry in ruled[:MOST_REASONS])
        out.say(f"skipped     {names}")


def _first(entry: dict[str, Any]) -> str:
    """The command that would read the first of these files, else its path; a reader's are in dropped.jsonl."""
    return str(entry["do"] or next(iter(entry["examples"]), "see dropped.jsonl"))


def sentences(manifest: dict[str, Any]) -> list[str]:
    """The corpus in a few lines: sides, vocabulary, overlap, what was dropped."""
    train, validation = manifest["splits"]["train"], manifest["splits"]["validation"]
    tokenizer = manifest["tokenizer"]
    total = train["bytes"] + validation["bytes"]
    lines = [
        f"train       {_side(train, total)}",
        f"validation  {_side(validation, total)}: {validation['rule']}",
        f"vocabulary  {tokenizer['vocab_size']:,} ids ({tokenizer['type']}), "
        f"{tokenizer['bytes_per_token']:.2f} bytes a token: {tokenizer['why']}",
    ]
    if tokenizer["sample_bytes"]:
        lines[-1] += f" (trained on {human_bytes(tokenizer['sample_bytes'])})"
    if not tokenizer["fast"]:
        lines.append(f"encoding    the slow way: {tokenizer['fast_reason']}")
    elif tokenizer["fallbacks"]:
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in tokenizer["fallbacks"].items())
        lines.append(f"encoding    documents that took the slow way: {reasons}")
    if manifest["overlap"] is not None:
        lines.append(f"overlap     {_overlap(manifest['overlap'])}")
    dropped = sum(sum(step["dropped"].values()) for step in manifest["steps"])
    if dropped:
        lines.append(f"dropped     {dropped:,} documents, each with its reason in dropped.jsonl")
    return lines


def _side(split: dict[str, Any], total: int) -> str:
    if not split["documents"]:
        return "nothing"
    word = "document" if split["documents"] == 1 else "documents"
    size = human_bytes(split["bytes"])
    share = split["bytes"] / total
    return f"{human_count(split['tokens'])} tokens, {size} ({share:.1%}) in {split['documents']:,} {word}"


def _overlap(overlap: dict[str, Any]) -> str:
    share = overlap["share"]
    n = overlap["ngram"]
    whole = overlap["whole_documents"]
    text = (
        f"{_percent(share['value'])} of the validation {n}-grams are in the training text "
        f"(95% interval {_percent(share['low'])} to {_percent(share['high'])}, n = {share['n']:,})"
    )
    are = "document is" if whole == 1 else "documents are"
    return text + (f"; {whole:,} validation {are} in it as a whole" if whole else "")


def _percent(share: float) -> str:
    if share == 0:
        return "0%"
    return f"{share:.1%}" if share >= 0.01 else f"{share * 100:.2g}%"
