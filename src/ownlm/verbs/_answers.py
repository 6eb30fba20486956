"""How the answer to a question is shown, with its passages."""

from __future__ import annotations

import os
import re
import sys
from typing import Any

from ownlm.console import output as out
from ownlm.search.ranking import Hit, Results
from ownlm.search.terms import marked

MARK, PLACE, PLAIN = "\x1b[1;33m", "\x1b[36m", "\x1b[0m"


def shown(found: dict[str, Any], results: Results, *, colour: bool) -> str:
    """A question's passages and answer as text; for one that is not found, that alone."""
    if not results.found:
        return not_found(found["documents"])
    blocks = [_block(hit, results.terms, colour) for hit in results.hits]
    if found["answer"] is not None:
        blocks.append(
            f"Answer: {found['answer']['answer']}\n        ({'; '.join(found['answer']['sources'])})"
        )
    elif not found["found"]:
        blocks.append(f"Answer: {not_found(found['documents'])}; the model finds none in these passages")
    return "\n\n".join(blocks)


def not_found(documents: int) -> str:
    """The line that says so."""
    return f"not found in {'this document' if documents == 1 else f'these {documents:,} documents'}"


def why(results: Results) -> str:
    """What is known about why nothing was found, and what comes nearest."""
    if not results.terms:
        return "The question has only words of grammar: there is nothing to search by."
    reasons = []
    if results.other_script:
        reasons.append("The question is written in another script than the documents.")
    if results.missing:
        listed = ", ".join(results.missing[:8])
        reasons.append(f"Not in any document: {out.printable(listed)}.")
    if results.hits:
        places = "; ".join(dict.fromkeys(hit.place for hit in results.hits[:3]))
        reasons.append(
            f"The nearest passage holds {results.share:.0%} of the question, {results.threshold:.0%} count as found. "
            f"Nearest: {out.printable(places)}"
        )
    return " ".join(reasons)


def coloured() -> bool:
    """Whether standard output is a terminal that shows colours."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def _block(hit: Hit, terms: frozenset[str], colour: bool) -> str:
    place, heading = out.printable(hit.place), f"  {hit.heading}" if hit.heading else ""
    if colour:
        place = f"{PLACE}{place}{PLAIN}"
    text = _marked(hit.text, terms) if colour else hit.text
    text = re.sub(r"\n\s*\n", "\n", text)
    return f"{place}{heading}\n" + "\n".join(f"  {line}" for line in text.split("\n"))


def _marked(text: str, terms: frozenset[str]) -> str:
    pieces, done = [], 0
    for begin, end in marked(text, terms):
        pieces += [text[done:begin], MARK, text[begin:end], PLAIN]
        done = end
    return "".join([*pieces, text[done:]])
