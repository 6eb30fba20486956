"""The model card of an exported folder: where the weights come from, what was changed, and how that was checked."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ownlm import __version__
from ownlm.export.rewrite import refuse_outside
from ownlm.json_files import read_object

HEADING = "## Provenance"


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
    run = source / "run.json"
    if run.is_file():
        data = read_object(run).get("data")
        if isinstance(data, dict) and data.get("hash"):
            lines.append(f"- Trained on the corpus with the hash `{data['hash']}`.")
    (target / "README.md").write_text(text + "\n" + "\n".join(lines) + "\n", encoding="utf-8")
