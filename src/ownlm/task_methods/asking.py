"""What a causal model reads to do a task: a conversation through its chat template, or a plain text.

A model that was fine-tuned here is asked exactly as it was trained: through the template that lies in its folder
(`tasks.prompts.as_chat`), or, where there is none, with the source alone (`tasks.render.render_pair`). A model that
only continues text gets the forms of Radford et al. 2019 ("Language Models are Unsupervised Multitask Learners",
§3.6-3.7: "TL;DR:", pairs of sentences) and Zhao et al. 2021 (arXiv 2102.09690, appendix: categories, "Answer:").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ownlm.console.errors import Refused
from ownlm.continuation import Prompt
from ownlm.conversation import chat_prompt
from ownlm.tasks.answer_end import answer_ends
from ownlm.tasks.items import Chat, Item, Labelled, Messages, Pair, Question
from ownlm.tasks.prompts import as_chat, as_plain
from ownlm.tasks.shapes import language_name
from ownlm.tasks.templates import ChatTemplate, find_template, folder_template
from ownlm.tasks.text_forms import NO_ANSWER, classification_chat, listed, question_chat

if TYPE_CHECKING:
    from ownlm.loaded import LoadedModel


@dataclass(frozen=True)
class Asked:
    """What a model reads, and what ends its answer.

    Attributes:
        text: of the prompt. specials: whether special tokens that it spells are meant.
        stop: strings that end the answer. lead: what stands between prompt and answer.
    """

    text: str
    specials: bool = False
    stop: tuple[str, ...] = ()
    lead: str = ""


class Asker:
    """How one model is asked.

    Args:
        loaded: a causal model.
        plain: ask in plain text although the folder has a chat template.
    """

    def __init__(self, loaded: LoadedModel, *, plain: bool = False) -> None:
        self.loaded, self._plain = loaded, plain

    @cached_property
    def template(self) -> ChatTemplate | None:
        """The model's own chat template."""
        tokenizer, folder = self.loaded.tokenizer, self.loaded.path
        if self._plain or folder_template(tokenizer, folder) is None:
            return None
        return find_template(tokenizer, folder, None)

    @cached_property
    def turn_ends(self) -> tuple[int, ...]:
        """The tokens that end an answer in training; () without a template."""
        if self.template is None:
            return ()
        return tuple(answer_ends(self.template, self.loaded.tokenizer))

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer: the template's, and the model's."""
        return tuple(dict.fromkeys([*self.turn_ends, *self.loaded.stop_ids]))

    # ---- tasks

    def pair(self, task: str, source: str, languages: tuple[str, str] = ("", "")) -> Asked:
        """A text to translate, to summarize, or to go on with ("completion")."""
        if task == "completion":
            return Asked(source)
        chat = as_chat(Pair("", source, "", languages=languages), task)
        assert chat is not None
        if self.template is not None:
            return self.conversation(chat.messages[:-1])
        if task in self.loaded.taught:
            return Asked(as_plain(Pair("", source, ""), task).source)
        if task == "summarization":
            return Asked(f"{source}\n\nTL;DR:", stop=("\n",), lead=" ")
        from_, to = (language_name(code) for code in languages)
        return Asked(f"{from_ or 'Text'}: {source}\n{to or 'Translation'}:", stop=("\n",), lead=" ")

    def labels(self, text: str, labels: Sequence[str]) -> Asked:
        """A text whose label is asked for."""
        if self.template is not None:
            return self.conversation(classification_chat(Labelled("", text, ""), labels).messages[:-1])
        return Asked(f"Classify the text as {listed(labels)}.\n\nText: {text}\nAnswer:", lead=" ")

    def question(self, question: str, context: str) -> Asked:
        """A question about a context."""
        if self.template is not None:
            return self.conversation(question_chat(Question("", context, question, ())).messages[:-1])
        asked = f'Answer with words of the text, or "{NO_ANSWER}".\n\nText: {context}\n\nQuestion: {question}'
        return Asked(f"{asked}\nAnswer:", stop=("\n",), lead=" ")

    def item(self, item: Item, task: str) -> Asked:
        """A row of a task whose answer is a text."""
        if isinstance(item, Chat):
            return self.conversation(turns_before_answer(item), item)
        assert isinstance(item, Pair)
        return self.pair(task, item.source, item.languages)

    def conversation(self, messages: Messages, chat: Chat | None = None) -> Asked:
        """Turns that the assistant answers.

        Raises:
            Refused: the model has no chat template, or the template refuses the turns.
        """
        template = self.template
        if template is None:
            template = find_template(self.loaded.tokenizer, self.loaded.path, None)  # refused with what helps
        return Asked(
            chat_prompt(template, self.loaded.tokenizer, messages, chat.tools if chat else ()).text, True
        )

    # ---- tokens

    def ids(self, asked: Asked) -> list[int]:
        """Token ids of a prompt, as in training."""
        return self.whole(asked, "")

    def whole(self, asked: Asked, answer: str) -> list[int]:
        """Token ids of a prompt and an answer, tokenized as one text."""
        text, tokenizer = asked.text + answer, self.loaded.tokenizer
        if self.loaded.answers_alone:  # an encoder reads the prompt as a whole text
            return list(tokenizer.encode_whole(text).ids)
        if not asked.specials:
            return tokenizer.encode_prompt(text)
        ids: list[int] = tokenizer.encode(text, specials=True).tolist()
        return ids

    def split(self, asked: Asked, answers: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """A prompt and answers to it as token ids: what all of them begin with is the prompt.

        Raises:
            Refused: that is nothing.
        """
        if self.loaded.answers_alone:
            return self.ids(asked), [self.loaded.tokenizer.encode(answer).tolist() for answer in answers]
        alone = self.ids(asked)
        wholes = [self.whole(asked, asked.lead + answer) for answer in answers]
        shared = min(_common(alone, whole) for whole in wholes)
        if shared == 0:
            raise Refused("the tokenizer joins prompt and answer.", where=self.loaded.path)
        return alone[:shared], [whole[shared:] for whole in wholes]

    def prompt(self, asked: Asked) -> Prompt:
        """A prompt as `continue_texts` takes it."""
        ours = int(self.loaded.tokenizer.ours and not asked.specials and not self.loaded.answers_alone)
        return Prompt(asked.text, self.ids(asked), ours)


def turns_before_answer(chat: Chat) -> Messages:
    """The turns before the last one of the assistant.

    Raises:
        Refused: the assistant says nothing.
    """
    last = max((n for n, turn in enumerate(chat.messages) if turn["role"] == "assistant"), default=-1)
    if last < 0:
        raise Refused("no turn of the assistant.", where=chat.where, why="There is nothing to compare with.")
    return chat.messages[:last]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common beginning."""
    return next((n for n, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
