"""What all pipelines share: options at making and at calling, one input or many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ownlm.console.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from ownlm.loaded import LoadedModel

# Options of transformers that choose how inputs are padded and batched: results do not depend on them here.
WITHOUT_EFFECT = ("num_workers", "padding", "truncation", "clean_up_tokenization_spaces", "return_text")


class Pipeline:
    """A task of a loaded model, called like the pipeline of that name in transformers 4.

    Args:
        task: its name. loaded: the model.
        options: of every call, unless the call says otherwise.

    Raises:
        UsageError: an option that the task does not have.
    """

    OPTIONS: ClassVar[Mapping[str, Any]] = {}  # name → default

    def __init__(self, task: str, loaded: LoadedModel, options: Mapping[str, Any]) -> None:
        self.task, self.model, self.tokenizer = task, loaded, loaded.tokenizer
        self._options = self._checked(options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.task!r}, {self.model!r})"

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """One input or a list of them; of anything else that yields inputs an iterator over results."""
        chosen = self._options | self._checked(options)
        if isinstance(inputs, list | tuple):
            return self.many(list(inputs), chosen) if inputs else []
        if isinstance(inputs, str | dict):
            return self.one(inputs, chosen)
        if isinstance(inputs, Iterable):
            return self._each(inputs, chosen)
        raise UsageError(
            f"{type(inputs).__name__} is no text.", where="inputs", do="a text or a list of texts"
        )

    def _each(self, inputs: Iterable[Any], options: Mapping[str, Any]) -> Iterator[Any]:
        for value in inputs:
            yield self.one(value, options)

    def one(self, value: Any, options: Mapping[str, Any]) -> Any:
        """The result of one input, in the shape of a single one."""
        return self.many([value], options)[0]

    def many(self, values: Sequence[Any], options: Mapping[str, Any]) -> list[Any]:
        """The result of each input."""
        raise NotImplementedError

    def _checked(self, options: Mapping[str, Any]) -> dict[str, Any]:
        known = {}
        for name, value in options.items():
            if name in WITHOUT_EFFECT:
                continue
            if name not in self.OPTIONS:
                raise UsageError(
                    f'the pipeline "{self.task}" has no option "{name}".{did_you_mean(name, self.OPTIONS)}',
                    why=f"It has {', '.join(self.OPTIONS) or 'none'}.",
                )
            known[name] = value
        return known

    def _value(self, options: Mapping[str, Any], name: str) -> Any:
        return options.get(name, self.OPTIONS[name])


def texts_of(values: Sequence[Any]) -> list[str]:
    """Inputs as texts.

    Raises:
        UsageError: one of them is something else.
    """
    for value in values:
        if not isinstance(value, str):
            raise UsageError(
                f"{type(value).__name__} is no text.", where="inputs", do="a text or a list of texts"
            )
    return list(values)
