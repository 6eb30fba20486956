"""How `evaluate` shows figures, of causal and of masked models."""

from __future__ import annotations

from typing import Any

from ownlm.console import output as out


def text_line(found: dict[str, Any]) -> str:
    """'book.txt: 1 document, 12 kB, 3,210 tokens'."""
    documents = "1 document" if found["documents"] == 1 else f"{found['documents']:,} documents"
    return f"{found['text']}: {documents}, {out.human_bytes(found['bytes'])}, {found['tokens']:,} tokens"


def baselines(found: dict[str, Any]) -> str:
    """'gzip -9 3.1416, xz -9 2.7183'."""
    return ", ".join(f"{name} {value:.4f}" for name, value in found["baselines"].items())


def interval(found: dict[str, Any], name: str) -> str:
    """'1.8312 (95 % 1.8011 to 1.8620, 41 documents)'."""
    value = found[name]
    number, low, high = (f"{value[key]:.4f}" for key in ("value", "low", "high"))
    if value["n"] < 2:
        return f"{number} (too little text for an interval)"
    return f"{number} (95 % {low} to {high}, {int(value['n']):,} {found['interval']['resampled']})"


def window_line(found: dict[str, Any]) -> str:
    """How it was measured: windows, arithmetic, speed."""
    return (
        f"Windows of {found['context']:,} tokens advance by {found['stride']:,}; {found['dtype']}; "
        f"{found['tokens_per_second']:,.0f} tokens/s"
    )
