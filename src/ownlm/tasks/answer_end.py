"""The tokens that end an answer in a chat template: what training teaches a model to stop with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ownlm.tasks.items import Chat
from ownlm.tasks.problems import BadRow
from ownlm.tasks.render import Rendered, render_chat

if TYPE_CHECKING:
    from ownlm.corpus.tokenizer import Tokenizer
    from ownlm.tasks.templates import ChatTemplate

TURN = ({"role": "user", "content": "1"}, {"role": "assistant", "content": "2"})
# The answer before another question may end with another token than the last one.
PROBES = (TURN, TURN * 2)


def answer_ends(template: ChatTemplate, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The special tokens that a template puts behind answers, found by rendering as for training.

    Returns:
        () where it has none, or does not show where an answer stands: then a model does not learn to stop there.
    """
    ends: dict[int, None] = {}
    for messages in PROBES:
        try:
            row = render_chat(Chat("", messages), template, tokenizer)
        except BadRow:  # it wants other turns; what a probe does not show is not guessed
            continue
        ends |= dict.fromkeys(_last_of_answers(row))
    special = set(tokenizer.special_ids.values())
    return tuple(index for index in ends if index in special)


def _last_of_answers(row: Rendered) -> list[int]:
    behind = [*row.trained[1:], False]
    return [index for index, on, more in zip(row.ids, row.trained, behind) if on and not more]
