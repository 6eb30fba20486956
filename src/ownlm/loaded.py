"""A model that is ready for use: `load(run)` gives the object with tokenizer and engine behind one name."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownlm.answer_form import constraint_of, stop_ids, stop_strings, token_bytes
from ownlm.chatting import Chatting
from ownlm.console import output as out
from ownlm.console.errors import Refused, UsageError
from ownlm.continuation import Completion, Piece, Prompt, continue_texts, encode_prompt
from ownlm.json_files import read_object
from ownlm.locate import ADAPTER_FILE, RUN_FILE, find_run, holds_adapter
from ownlm.task_methods.methods import TaskMethods

if TYPE_CHECKING:
    from ownlm.corpus.tokenizer import Tokenizer
    from ownlm.engine.constrained import TokenBytes
    from ownlm.engine.engine import Engine
    from ownlm.engine.requests import SamplingSettings
    from ownlm.engine.scoring import Scorer
    from ownlm.model.transformer import Transformer

DEFAULT_NEW_TOKENS = 200  # about two paragraphs; when neither max_length nor max_new_tokens is given


class LoadedModel(Chatting, TaskMethods):
    """A run folder opened for use.

    Args:
        path: the folder.
        run: what its run.json says; {} for a model from elsewhere.
        tokenizer: text to ids and back.
        engine: generates and scores token ids.

    `answers_alone`: what it writes is a text of its own, shown without the prompt; else it continues the prompt.
    """

    answers_alone = False

    def __init__(self, path: Path, run: dict[str, Any], tokenizer: Tokenizer, engine: Engine) -> None:
        self.path, self.run, self.tokenizer, self.engine = path, run, tokenizer, engine

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        backend: Any = self.engine.backend
        counted = backend.config if hasattr(backend, "config") else backend.model
        parameters = counted.num_parameters()
        return f"LoadedModel({str(self.path)!r}, {parameters:,} parameters, context {self.context:,})"

    @cached_property
    def model(self) -> Transformer:
        """The weights as a torch model; read when first asked for where the native kernels hold packed ones."""
        from ownlm.engine.native_backend import NativeBackend
        from ownlm.engine.opening import torch_model

        backend: Any = self.engine.backend
        if not isinstance(backend, NativeBackend):
            return backend.model
        import torch

        dtype = torch.bfloat16 if backend.dtype == "bfloat16" else torch.float32
        return torch_model(self.path, "cpu", dtype)

    @property
    def text_scorer(self) -> Scorer:
        """What computes log-probabilities of texts: the engine, and so the bits that generating reports; where torch
        computes the model itself, whole batches at once: the order in which the engine adds costs torch several times
        as much.
        """
        return self.engine if self.engine.backend.name == "native" else self.model

    @cached_property
    def adapters(self) -> dict[str, LoadedModel]:
        """Adapters beside this model in memory, by name; all share its engine."""
        return {}

    def with_adapter(self, adapter: str | os.PathLike[str]) -> LoadedModel:
        """This model with an adapter: one of `adapters` by its name, or a folder, which is read and added to them.

        Raises:
            UsageError: there is no such adapter. Refused: damaged, or of another base.
        """
        from ownlm.adapters import with_adapter

        return with_adapter(self, adapter)

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together at most."""
        return self.engine.max_context

    @property
    def taught(self) -> list[str]:
        """What the model was taught: "continues text", "chat", names of tasks."""
        return [str(what) for what in self.run.get("taught", ["continues text"])]

    def generate(
        self, prompt: str | Sequence[str] = "", *, completion_only: bool = False, **options: Any
    ) -> str | list[str]:
        """Continue a text; the options and their defaults are those of `ownlm generate`.

        Returns:
            The prompt and what follows it; a list of texts for several prompts or `num_return_sequences`.
        """
        found = self.complete(prompt, **options)
        alone = completion_only or self.answers_alone
        texts = [c.text if alone else c.prompt + c.text for c in found]
        return texts[0] if isinstance(prompt, str) and len(texts) == 1 else texts

    def complete(self, prompt: str | Sequence[str] = "", **options: Any) -> list[Completion]:
        """Like `generate`, with token counts, finish reason and seed of each sequence, in order."""
        pieces = self.stream(prompt, **options)
        found = [(piece.prompt, piece.index, piece.completion) for piece in pieces if piece.completion]
        return [completion for _, _, completion in sorted(found, key=lambda entry: entry[:2])]

    def stream(
        self,
        prompt: str | Prompt | Sequence[str | Prompt] = "",
        *,
        max_length: int | None = None,
        max_new_tokens: int | None = None,
        temperature: float = 0.8,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        min_new_tokens: int = 0,
        schema: Mapping[str, Any] | None = None,
        choices: Sequence[str] = (),
        regex: str | None = None,
        stop: str | Sequence[str] = (),
        seed: int | None = None,
        num_return_sequences: int = 1,
        stop_token_ids: Sequence[int] = (),
    ) -> Iterator[Piece]:
        """Yield text as it becomes certain; see `generate`.

        A `Prompt` is read as the ids that it holds. `stop_token_ids` end an answer too, beside the model's own.
        """
        from ownlm.engine.requests import SamplingSettings

        stop = stop_strings(stop)
        ends = tuple(dict.fromkeys((*self.stop_ids, *stop_token_ids)))
        if max_length is None and max_new_tokens is None:
            max_new_tokens = DEFAULT_NEW_TOKENS
        settings = SamplingSettings(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            min_new_tokens=min_new_tokens,
            max_new_tokens=max_new_tokens,
            # Our own <|endoftext|> before the prompt is not part of what the user counts.
            max_length=None if max_length is None else max_length + int(self.tokenizer.ours),
            stop_token_ids=ends,
            seed=draw_seed() if seed is None else seed,
            n=num_return_sequences,
        )
        given = [prompt] if isinstance(prompt, str | Prompt) else prompt
        prompts = [p if isinstance(p, Prompt) else self._prompt(p, settings) for p in given]
        form = None
        if schema is not None or choices or regex is not None:
            form = constraint_of(self.vocabulary_for(ends), schema, choices, regex)
        return continue_texts(self.engine, self.tokenizer, prompts, [settings] * len(prompts), stop, form)

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer."""
        return stop_ids(self.path, self.tokenizer, self.engine.backend.vocab_size)

    @cached_property
    def vocabulary(self) -> TokenBytes:
        """What tokens spell, as constraints on the output see it."""
        return self.vocabulary_for(self.stop_ids)

    @cached_property
    def _vocabularies(self) -> dict[tuple[int, ...], TokenBytes]:
        return {}

    def vocabulary_for(self, ends: tuple[int, ...]) -> TokenBytes:
        """The same with these tokens for the end of an answer; reading a large vocabulary takes a second."""
        known = self._vocabularies
        if ends not in known:
            known[ends] = token_bytes(self.tokenizer, ends, self.engine.backend.vocab_size)
        return known[ends]

    def _prompt(self, text: str, settings: SamplingSettings) -> Prompt:
        """A prompt; refused when it leaves no room, with the numbers that the user can count."""
        prompt = encode_prompt(self.tokenizer, text)
        tokens = prompt.tokens
        if len(prompt.ids) >= self.context:
            raise Refused(
                f"the prompt has {tokens:,} tokens; the model's context window holds {self.context:,}, "
                "the start of the text and the answer included.",
                where="prompt",
                do=f"a prompt of at most {self.context - 1 - prompt.uncounted:,} tokens",
            )
        if settings.max_length is not None and settings.max_length <= len(prompt.ids):
            raise UsageError(
                f"--max-length is {settings.max_length - prompt.uncounted:,}, and the prompt has {tokens:,} tokens already.",
                where="--max-length",
                why="It counts prompt and answer together.",
                do="--max-new-tokens 100",
            )
        return prompt


def load(
    model: str | os.PathLike[str] | LoadedModel,
    *,
    device: str = "auto",
    dtype: str = "auto",
    max_context: int | None = None,
    backend: str | None = None,
    adapters: Sequence[str | os.PathLike[str]] | Mapping[str, str | os.PathLike[str]] = (),
) -> LoadedModel:
    """Open a model for use.

    Args:
        model: a run or checkpoint folder, `last` (the newest run below this folder), or a name on the hub; a folder
            with an adapter brings its base.
        device: cpu, cuda, mps, or auto.
        dtype: float32, bfloat16, int8, int4 (on a CPU), or auto: the stored one.
        max_context: a smaller context window than the model was made for.
        backend: native, torch; None: native on a CPU where the kernels were built.
        adapters: folders of adapters of this model, or name -> folder; `with_adapter` gives each.

    Raises:
        UsageError: there is no such model. Refused: the folder holds something else or is damaged.
    """
    if isinstance(model, LoadedModel):
        loaded = model
    else:  # a wrong name is said before torch is loaded
        loaded = _opened(resolve(model), device, dtype, max_context, backend)
    if adapters:
        from ownlm.adapters import with_adapters

        with_adapters(loaded, adapters)
    return loaded


def _opened(path: Path, device: str, dtype: str, max_context: int | None, backend: str | None) -> LoadedModel:
    from ownlm.machine.device import choose_device

    where = choose_device(device)
    if holds_adapter(path):
        from ownlm.adapters import load_adapter

        return load_adapter(path, device=where, dtype=dtype, max_context=max_context, backend=backend)
    if (path / ADAPTER_FILE).is_file():
        out.say(f"{path}: a whole model lies beside the adapter; it is opened without the adapter.")
    from ownlm.corpus.tokenizer import Tokenizer
    from ownlm.model.fields import NotNative

    tokenizer = Tokenizer.load(path)
    try:
        return _native(path, tokenizer, where, dtype, max_context, backend)
    except NotNative as refusal:
        from ownlm.foreign import load_foreign

        return load_foreign(path, tokenizer, refusal, device=where, dtype=dtype, max_context=max_context)


def _native(
    path: Path, tokenizer: Tokenizer, device: str, dtype: str, max_context: int | None, backend: str | None
) -> LoadedModel:
    """Open a model of a family that is built in."""
    from ownlm.engine.engine import Engine
    from ownlm.engine.opening import NOT_BUILT, open_folder
    from ownlm.model.checkpoint import read_config
    from ownlm.model.encoder_families import is_masked
    from ownlm.model.head_families import head_kind

    content = read_config(path)
    if head_kind(content) is not None:
        from ownlm.headed import load_headed_model

        return load_headed_model(path, tokenizer, device=device, dtype=dtype, max_context=max_context)
    if is_masked(content):
        from ownlm.masked import load_masked

        return load_masked(path, tokenizer, device=device, dtype=dtype, max_context=max_context)
    opened = open_folder(path, dtype=dtype, device=device, max_context=max_context, backend=backend)
    if tokenizer.vocab_size > opened.vocab_size:
        raise Refused(
            f"the tokenizer has {tokenizer.vocab_size:,} tokens, the model {opened.vocab_size:,}.",
            where=path,
            why="They do not belong together.",
        )
    if opened.name == "torch" and device == "cpu" and backend is None:
        out.say(f"torch computes: {NOT_BUILT} (pip builds them where a C++ compiler is).", style="dim")
    engine = Engine(opened)
    if engine.plan.short:
        out.say(f"memory: {engine.plan}", style="dim")
    return LoadedModel(path, read_run(path), tokenizer, engine)


def resolve(model: str | os.PathLike[str]) -> Path:
    """The folder that a MODEL argument means.

    What exists here wins, then `last`, then what is written as a path. Another word or `owner/name` is asked for
    at the hub; when the hub has nothing, the message names the closest local run too.
    """
    name, path = os.fspath(model), Path(model)
    if path.exists() or name == "last":
        return find_run(path)
    from ownlm.hub import fetch, hub_name
    from ownlm.hub_errors import HubError

    wanted = hub_name(name)
    if wanted is None:
        return find_run(path)
    try:
        return fetch(wanted)
    except HubError as error:
        asked = error
    try:
        return find_run(path)
    except UsageError as local:
        if "/" not in name:  # first of all a misspelt run
            asked.kind = UsageError
            raise asked.own(name, local.what, local.do) from None
        raise asked.own(name, local.what) from None


def read_run(path: Path) -> dict[str, Any]:
    """run.json of a run folder, or of the run that a checkpoint folder belongs to; {} for other models."""
    for folder in (path, path.parent.parent) if path.parent.name == "checkpoints" else (path,):
        if (folder / RUN_FILE).is_file():
            return read_object(folder / RUN_FILE)
    return {}


def draw_seed() -> int:
    """A seed that is short enough to be typed again."""
    return secrets.randbelow(10**9)
