"""What a loaded model says in a conversation: its methods `chat` and `chat_stream`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from ownlm.continuation import Completion, Piece
    from ownlm.loaded import LoadedModel


class Chatting:
    """The part of `LoadedModel` that answers messages."""

    def chat(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Any] = (),
        system: str | None = None,
        chat_template: str | None = None,
        **sampling: Any,
    ) -> Completion:
        """The answer to the last message of a conversation.

        Args:
            messages: {"role": "user", "content": "…"} each, alternating with "assistant"; a text is one message.
            tools: descriptions of tools, for a chat template that writes them.
            system: a text that is put in front.
            chat_template: a built-in one by its name, or a file; None: that of the model's folder.
            sampling: the options of `ownlm chat`.

        Raises:
            Refused: the model has no chat template, or it refuses the messages; the last message fills the window.
            UsageError: what is given are no messages, or the last one is no question.
        """
        pieces = self.chat_stream(
            messages, tools=tools, system=system, chat_template=chat_template, **sampling
        )
        return next(piece.completion for piece in pieces if piece.completion is not None)

    def chat_stream(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Any] = (),
        system: str | None = None,
        chat_template: str | None = None,
        **sampling: Any,
    ) -> Iterator[Piece]:
        """Like `chat`; yields the answer as it becomes certain."""
        from ownlm.conversation import Conversation, checked, say_left_out

        loaded = cast("LoadedModel", self)
        conversation = Conversation(loaded, chat_template)
        pieces, left_out = conversation.stream(checked(messages, system), tools, **sampling)
        say_left_out(left_out, loaded)
        return pieces
