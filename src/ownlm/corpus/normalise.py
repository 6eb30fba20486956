"""One form for every text: NFC, `\\n` line ends, no control characters. Everything changed is counted."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from ownlm.console.errors import missing_extra

# What is never text: C0 except tab and newline, DEL, C1, byte-order marks inside a text, lone surrogates.
# U+200C/U+200D (Persian, Indic, emoji) and the bidirectional marks are text and stay.
_UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ud800-\udfff]")

KINDS = {
    "line ends": "\\r\\n, \\r and NEL written as \\n",
    "control characters": "C0, C1 and DEL removed",
    "byte-order marks": "U+FEFF inside a text removed",
    "lone surrogates": "halves of UTF-16 pairs removed",
    "composed to NFC": "texts whose letters and accents were joined",
    "mojibake repaired": "texts that ftfy changed",
}


def is_normal(texts: Sequence[str]) -> bool:
    """Whether `normalise` changes none of these texts; one look at all of them."""
    # A line end between two texts: no letter and accent of different texts come together.
    joined = "\n".join(texts)
    return not _UNWANTED.search(joined) and unicodedata.is_normalized("NFC", joined)


def normalise(text: str, *, fix_mojibake: bool = False) -> tuple[str, dict[str, int]]:
    """The text as every later step sees it, and what was changed.

    Args:
        text: any text; lone surrogates allowed.
        fix_mojibake: let ftfy repair UTF-8 that was once read as another encoding ("schÃ¶n").

    Returns:
        (text, counts) with the keys of `KINDS`; no key for what did not occur.

    Raises:
        UsageError: `fix_mojibake` without ftfy.
    """
    counts: dict[str, int] = {}
    if fix_mojibake:
        fixed = _repair(text)
        if fixed != text:
            counts["mojibake repaired"] = 1
            text = fixed
    if _UNWANTED.search(text):
        text = _clean(text, counts)
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
        counts["composed to NFC"] = 1
    return text, counts


def _clean(text: str, counts: dict[str, int]) -> str:
    line_ends = text.count("\r") + text.count("\x85")
    if line_ends:
        counts["line ends"] = line_ends
        text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x85", "\n")
    removed = Counter(_UNWANTED.findall(text))
    for character, number in removed.items():
        if character == "\ufeff":
            kind = "byte-order marks"
        elif "\ud800" <= character <= "\udfff":
            kind = "lone surrogates"
        else:
            kind = "control characters"
        counts[kind] = counts.get(kind, 0) + number
    return _UNWANTED.sub("", text) if removed else text


def _repair(text: str) -> str:
    try:
        import ftfy
    except ImportError:
        raise missing_extra("ftfy", "data", "Repairing mojibake") from None
    # Only the repair of wrong decodings: quotes, widths, ligatures and the rest of the text stay as written.
    config = ftfy.TextFixerConfig(
        unescape_html=False,
        remove_terminal_escapes=False,
        fix_encoding=True,
        restore_byte_a0=True,
        replace_lossy_sequences=True,
        decode_inconsistent_utf8=True,
        fix_c1_controls=True,
        fix_latin_ligatures=False,
        fix_character_width=False,
        uncurl_quotes=False,
        fix_line_breaks=False,
        fix_surrogates=True,
        remove_control_chars=False,
        normalization=None,
        explain=False,
    )
    return str(ftfy.fix_text(text, config))
