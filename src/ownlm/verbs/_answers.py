"""How a question is answered from what was found: words of a passage, or a text of the model's own; how it is shown."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ownlm.console import output as out
from ownlm.console.errors import Refused
from ownlm.search.ranking import Hit, Results
from ownlm.search.terms import marked

if TYPE_CHECKING:
    from ownlm.loaded import LoadedModel

MARK, PLACE, PLAIN = "\x1b[1;33m", "\x1b[36m", "\x1b[0m"


def span_answer(loaded: LoadedModel, question: str, hits: Sequence[Hit]) -> dict[str, Any] | None:
    """Words of a passage as the answer: {"answer", "score", "start", "end", "passage", "sources"}; None without any.

    The probability that the model gives an answer counts times how good its passage is beside the best one.
    """
    best: dict[str, Any] | None = None
    for number, answers in enumerate(loaded.read_all([(question, hit.text) for hit in hits])):
        answer = answers[0]
        if not answer["answer"].strip():
            continue
        score = answer["score"] * hits[number].score / hits[0].score
        if best is None or score > best["score"]:
            source = hits[number].place_of(answer["start"])
            best = {**answer, "score": score, "passage": number, "sources": [source]}
    return best


def written_answer(loaded: LoadedModel, question: str, hits: Sequence[Hit]) -> dict[str, Any] | None:
    """What the model writes from the passages: {"answer", "sources"}; None when it says that they do not tell.

    Passages that do not fit the model's window are left out, the last ones first, which is said.

    Raises:
        Refused: the model does not chat, or not even the first passage fits.
    """
    from ownlm.tasks.text_forms import NO_ANSWER

    for count in range(len(hits), 0, -1):
        given = "\n\n".join(f"[{n}] {hit.place}\n{hit.text}" for n, hit in enumerate(hits[:count], 1))
        asked = (
            f'Answer the question from these passages alone. If they do not tell, say "{NO_ANSWER}".\n\n'
            f"{given}\n\nQuestion: {question}"
        )
        try:
            completion = loaded.chat(asked, temperature=0, seed=0)
        except Refused as error:
            if error.where != "message" or count == 1:
                raise
            continue
        if count < len(hits):
            out.say(
                f"{len(hits) - count} of {len(hits)} passages do not fit the model's window and were not read."
            )
        if completion.finish_reason == "length":
            out.warn("the answer was cut at its length.")
        text = completion.text.strip()
        sources = [hit.place for hit in hits[:count]]
        return None if text.strip('." ').lower() == NO_ANSWER else {"answer": text, "sources": sources}
    return None


def document(
    question: str, results: Results, answer: dict[str, Any] | None, documents: int, *, read: bool
) -> dict[str, Any]:
    """A question with all that is known about it, as JSON has it and Python gets it.

    Args:
        answer: of the model. read: whether a model was asked.
        documents: how many were searched.
    """
    passages = [
        {
            "text": hit.text,
            "source": hit.place,
            "file": hit.file,
            "line": hit.line,
            "page": hit.page,
            "heading": hit.heading,
            "score": hit.score,
        }
        for hit in results.hits
    ]
    return {
        "question": question,
        "found": results.found and (answer is not None or not read),
        "answer": answer,
        "passages": passages,
        "documents": documents,
        "share": results.share,
        "threshold": results.threshold,
        "missing": results.missing,
    }


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
