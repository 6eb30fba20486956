"""Labels and answers asked for in words: the causal form of tasks that heads are trained for otherwise."""

from __future__ import annotations

from collections.abc import Sequence

from ownlm.tasks.items import Chat, Labelled, Question

NO_ANSWER = "not in the text"  # what is written when a context does not hold the answer


def listed(words: Sequence[str]) -> str:
    """ "positive, neutral or negative"."""
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]


def classification_chat(item: Labelled, labels: Sequence[str]) -> Chat:
    """A text and its label as a conversation.

    Args:
        labels: all of them, in an order that stays the same.
    """
    asked = f"Classify the text as {listed(labels)}:\n\n{item.text}"
    return Chat(
        item.where, ({"role": "user", "content": asked}, {"role": "assistant", "content": item.label})
    )


def question_chat(item: Question) -> Chat:
    """A question about a context as a conversation; the first answer counts, `NO_ANSWER` stands for none.

    The context comes first, so that several questions about it share what was computed of it.
    """
    asked = f'Answer with words of the text, or "{NO_ANSWER}":\n\n{item.context}\n\nQuestion: {item.question}'
    answer = item.answers[0].text if item.answers else NO_ANSWER
    return Chat(item.where, ({"role": "user", "content": asked}, {"role": "assistant", "content": answer}))
