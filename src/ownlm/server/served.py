"""The models of a server: names, folders, chat templates, what their tokens are called."""

from __future__ import annotations

import copy
import hashlib
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownlm.console.errors import Refused, did_you_mean
from ownlm.server.driver import Driver
from ownlm.server.errors import ApiError

if TYPE_CHECKING:
    from ownlm.corpus.tokenizer import Tokenizer
    from ownlm.loaded import LoadedModel
    from ownlm.tasks.templates import ChatTemplate

SAMPLED_BYTES = 2**20  # of each end of a weights file, for the fingerprint


@dataclass
class Served:
    """A model under a name.

    Args:
        name: what requests call it.
        loaded: the model; several adapters share the engine of their base.
        driver: of the engine; None: a model that does not generate.
        template: of conversations; None: it has none.
        adapter: number in the engine; 0: none.
        parent: the name of an adapter's base.
    """

    name: str
    loaded: LoadedModel
    driver: Driver | None
    template: ChatTemplate | None
    adapter: int = 0
    parent: str | None = None
    created: int = field(default_factory=lambda: int(time.time()))
    rendering: threading.Lock = field(
        default_factory=threading.Lock
    )  # a template's sandbox is for one thread

    def about(self) -> dict[str, Any]:
        """An entry of /v1/models."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "ownlm",
            "root": self.parent or self.name,
            "parent": self.parent,
            "max_model_len": self.loaded.context,
            "taught": self.loaded.taught,
            "chat_template": self.template is not None,
            "generates": self.driver is not None,
        }

    @property
    def tokenizer(self) -> Tokenizer:
        """Of the model."""
        return self.loaded.tokenizer

    @cached_property
    def fingerprint(self) -> str:
        """Changes with weights, arithmetic and versions: what the same seed gives the same bytes for."""
        return fingerprint(self.loaded, self.adapter)

    @cached_property
    def tokens(self) -> TokenNames:
        """What tokens are called."""
        return TokenNames(self.tokenizer)

    @cached_property
    def turn_ends(self) -> tuple[int, ...]:
        """Special tokens that the template writes behind an answer; the model ends its turn with one of them."""
        if self.template is None:
            return ()
        from ownlm.tasks.answer_end import answer_ends

        with self.rendering:
            return answer_ends(self.template, self.tokenizer)

    def for_thread(self) -> LoadedModel:
        """The model for a thread of its own; its engine, a `SharedEngine`, computes for all requests together."""
        if self.driver is None:
            return self.loaded
        from ownlm.server.shared_engine import SharedEngine

        mine = copy.copy(self.loaded)
        mine.engine = SharedEngine(self.driver, self.adapter)
        return mine


class Models:
    """The served models by name; the first one answers requests that name none."""

    def __init__(self, models: list[Served]) -> None:
        self.by_name: Mapping[str, Served] = {model.name: model for model in models}
        self.first = models[0]

    def find(self, name: str | None) -> Served:
        """The model that a request means.

        Raises:
            ApiError: 404: there is no such model.
        """
        if name is None:
            return self.first
        found = self.by_name.get(name)
        if found is None:
            raise ApiError(
                404,
                f'There is no model "{name[:100]}".{did_you_mean(name[:100], self.by_name)} '
                f"Served: {', '.join(list(self.by_name)[:20])}.",
                param="model",
                code="model_not_found",
            )
        return found

    @property
    def drivers(self) -> list[Driver]:
        """Each driver once."""
        return list({id(m.driver): m.driver for m in self.by_name.values() if m.driver is not None}.values())


class TokenNames:
    """Tokens as text and as bytes.

    A token that is no valid UTF-8 alone is called `bytes:\\x..`, as OpenAI did, so that different tokens have
    different names.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special = {index: name for name, index in tokenizer.special_ids.items()}
        self._names: dict[int, str] = {}

    def name(self, index: int) -> str:
        """The name of a token."""
        found = self._names.get(index)
        if found is None:
            found = self._names[index] = self._spelled(index)
        return found

    def _spelled(self, index: int) -> str:
        data = self.data(index)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)

    def data(self, index: int) -> bytes:
        """The bytes of a token; a special token's are those of its name."""
        return self._special[index].encode() if index in self._special else self._tokenizer.token_bytes(index)

    def text(self, ids: list[int]) -> str:
        """The text of tokens, special ones by their names."""
        if self._special.keys().isdisjoint(ids):
            return self._tokenizer.decode(ids)
        return b"".join(map(self.data, ids)).decode("utf-8", "replace")


def chat_template(loaded: LoadedModel, given: str | None) -> ChatTemplate | None:
    """The template to use, or None where the model has none.

    Raises:
        UsageError, Refused: the given one, or that of the folder, cannot be used.
    """
    from ownlm.tasks.templates import find_template, folder_template

    if given is None and folder_template(loaded.tokenizer, loaded.path) is None:
        return None
    return find_template(loaded.tokenizer, loaded.path, given)


def turn_end(template: ChatTemplate, tokenizer: Tokenizer) -> int | None:
    """The special token behind an answer, found by rendering one."""
    from ownlm.tasks.problems import BadRow

    mark = "ownlm7answer"
    turns = [{"role": "user", "content": "u"}, {"role": "assistant", "content": mark}]
    try:
        text = template.text(turns)
    except BadRow:
        return None
    after = text.rpartition(mark)[2]
    names = sorted(tokenizer.special_ids, key=len, reverse=True)
    found = (
        re.match(r"\s*(" + "|".join(map(re.escape, names)) + ")", after) if names and mark in text else None
    )
    return tokenizer.special_ids[found[1]] if found else None


def fingerprint(loaded: LoadedModel, adapter: int = 0) -> str:
    """A short hash of what decides an answer's bytes."""
    import torch

    from ownlm import __version__

    digest = hashlib.sha256(f"{__version__} {torch.__version__} {adapter}".encode())
    backend = getattr(loaded, "scorer", None) or loaded.engine.backend
    for name in ("name", "dtype", "level"):
        digest.update(f"{name}={getattr(backend, name, '')}".encode())
    for file in sorted(Path(loaded.path).glob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(SAMPLED_BYTES))
            stream.seek(max(0, size - SAMPLED_BYTES))
            digest.update(stream.read(SAMPLED_BYTES))
    return "fp_" + digest.hexdigest()[:12]


def generating(model: Served) -> Served:
    """The model, when it writes text.

    Raises:
        ApiError: 400: it does something else.
    """
    if model.driver is None:
        can = "fills masks" if hasattr(model.loaded, "fill") else ", ".join(model.loaded.taught)
        raise ApiError(
            400,
            f'The model "{model.name}" does not write text. What it does: {can}.',
            param="model",
            code="no_generation",
        )
    return model


def no_template(model: Served) -> ApiError:
    """The answer to a conversation with a model that has no template."""
    return ApiError(
        400,
        f'The model "{model.name}" has no chat template: it was taught to {" and to ".join(_infinitive(model))}. '
        "Send a text to /v1/completions, or start the server with --chat-template.",
        param="messages",
        code="no_chat_template",
    )


def _infinitive(model: Served) -> list[str]:
    return [{"continues text": "continue text"}.get(what, what) for what in model.loaded.taught]


def check_names(names: list[str]) -> None:
    """Names of served models.

    Raises:
        Refused: one comes twice or cannot stand in a request.
    """
    for name in names:
        if not re.fullmatch(r"[\w.:/@+-]{1,200}", name):
            raise Refused(
                f"{name!r} is no name for a model.",
                where="--name",
                why="Letters, digits and . : / @ + - are.",
            )
        if names.count(name) > 1:
            raise Refused(
                f"two models are called {name!r}.", where="--adapter", do="--adapter another-name=FOLDER"
            )
