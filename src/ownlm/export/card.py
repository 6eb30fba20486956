"""The model card of an exported folder: where the weights come from, what was changed, and how that was checked."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ownlm import __version__
from ownlm.export.rewrite import refuse_outside
from ownlm.json_files import read_object

HEADING = "## Provenance"


_LAYOUT = (
    "Linear layers, embedding and head are whole numbers in groups of 32 with a float16 scale each. This layout is ownlm's "
    "own: `ownlm` opens the folder, transformers, vLLM and llama.cpp do not."
)


def quality_lines(done: dict[str, Any]) -> list[str]:
    """What quantising cost, in words; [] when nothing was quantised."""
    quality = done.get("quality")
    if quality is None:
        return []
    if "not_measured" in quality:
        why = quality["not_measured"].rstrip(".")
        return [f"What rounding the weights costs was not measured: {why} (--text FILE)."]
    before, after, ratio = (quality[name] for name in ("before", "after", "perplexity_ratio"))
    change = f"{ratio['value']:.4f} times as much"
    if ratio["n"] > 1:
        change += f" (95 % {ratio['low']:.4f} to {ratio['high']:.4f})"
    return [
        f"{name} {before[key]['value']:.4f} before ({before['dtype']}), {after[key]['value']:.4f} after "
        f"({after['dtype']}{'' if after['backend'] == 'native' else ', made floats again'}){end}."
        for name, key, end in (
            ("Bits per byte:", "bits_per_byte", ""),
            ("Perplexity:", "perplexity", f", {change}"),
        )
    ] + [f"Measured on {quality['text']}: {quality['tokens']:,} tokens."]


def write_card(source: Path, target: Path, name: str, done: dict[str, Any]) -> None:
    """README.md: the source's card when it has one, with a section about this export added.

    Args:
        name: the source as the user typed it.
        done: what `rewrite` returned, or of a conversion: format, tensors, bytes, dtype.
    """
    card = source / "README.md" if source.is_dir() else source.with_name("README.md")
    text = ""
    if source.is_dir() and card.is_file():
        refuse_outside(source, card)
        text = card.read_text(encoding="utf-8", errors="replace")
    if not text:
        text = f"---\nlibrary_name: transformers\n---\n# {target.resolve().name}\n"
    text = text.split(f"\n{HEADING}")[0].rstrip() + "\n"
    lines = [
        HEADING,
        "",
        f"- Written by ownlm {__version__} on {datetime.now(UTC):%Y-%m-%d} from `{name}`.",
        f"- {done['tensors']:,} tensors, {done['bytes']:,} bytes, dtype {done['dtype'] or 'as in the source'}.",
    ]
    if done.get("revision"):
        lines.append(f"- Revision of the source: `{done['revision']}`.")
    if done.get("format"):
        lines.append(f"- Converted from {done['format']}.")
    if done.get("source_sha256"):
        lines.append(f"- SHA-256 over names and bytes of the source's weights: `{done['source_sha256']}`.")
    if done.get("merged_into"):
        base = done["merged_into"]
        lines.append(f"- The source is an adapter; its changes were added to the weights of `{base}`.")
    if done.get("largest_change"):
        lines.append(f"- Largest change of a weight by rounding: {done['largest_change']:.3g}.")
    if done["dtype"] in ("int8", "int4"):
        text = text.replace("library_name: transformers", "library_name: ownlm")
        lines += [f"- {line}" for line in (_LAYOUT, *quality_lines(done))]
    run = source / "run.json"
    if run.is_file():
        data = read_object(run).get("data")
        if isinstance(data, dict) and data.get("hash"):
            lines.append(f"- Trained on the corpus with the hash `{data['hash']}`.")
    (target / "README.md").write_text(text + "\n" + "\n".join(lines) + "\n", encoding="utf-8")
