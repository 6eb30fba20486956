"""How a question is answered from passages that were found: words of one of them, or a text of the model's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ownlm.console import output as out
from ownlm.console.errors import Refused
from ownlm.search.ranking import Hit, Results

if TYPE_CHECKING:
    from ownlm.loaded import LoadedModel


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


def written_answer(
    loaded: LoadedModel,
    question: str,
    hits: Sequence[Hit],
    *,
    chat_template: str | None = None,
    tell: Callable[[str], None] = out.say,
) -> dict[str, Any] | None:
    """What the model writes from the passages: {"answer", "sources"}; None when it says that they do not tell.

    Passages that do not fit the model's window are left out, the last ones first, which is told.

    Args:
        chat_template: as in `LoadedModel.chat`.
        tell: takes what whoever asked should know.

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
            completion = loaded.chat(asked, chat_template=chat_template, temperature=0, seed=0)
        except Refused as error:
            if error.where != "message" or count == 1:
                raise
            continue
        if count < len(hits):
            tell(
                f"{len(hits) - count} of {len(hits)} passages do not fit the model's window and were not read."
            )
        if completion.finish_reason == "length":
            tell("the answer was cut at its length.")
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
