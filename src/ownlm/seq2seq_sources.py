"""How an encoder-decoder model is told what to do with a text: words before it, tokens around it, or nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownlm.console.errors import UsageError
from ownlm.corpus.marian import MarianTokenizer, language_tokens
from ownlm.model.checkpoint import read_config
from ownlm.seq2seq_settings import task_settings
from ownlm.task_methods.languages import language_code, language_name, language_token

if TYPE_CHECKING:
    from ownlm.corpus.tokenizer import Tokenizer

SHOWN_LANGUAGES = 12


@dataclass(frozen=True)
class Source:
    """How texts of one task and pair of languages are put.

    Attributes:
        prefix: words before a text (T5).
        before_ids: tokens before it (Marian's >>deu<<).
        replaced: a token that the tokenizer puts around a text → the one to put there (mBART's and NLLB's language).
        first_id: the token that an answer begins with.
        settings: fields for the search. note: what has to be said, or "".
    """

    prefix: str = ""
    before_ids: tuple[int, ...] = ()
    replaced: dict[int, int] = field(default_factory=dict)
    first_id: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    note: str = ""


class Sources:
    """The ways of one model.

    Args:
        tokenizer, path: of the model.
    """

    def __init__(self, tokenizer: Tokenizer, path: Path) -> None:
        self.tokenizer, self.path = tokenizer, path
        self._type = str(read_config(path).get("model_type"))
        self._tokens = self._named()

    def _named(self) -> dict[str, int]:
        """Tokens that may name languages → id."""
        if isinstance(self.tokenizer, MarianTokenizer):
            return {token: n for n, token in enumerate(self.tokenizer.tokens) if language_tokens([token])}
        return dict(self.tokenizer.special_ids)

    def ids(self, source: Source, text: str) -> list[int]:
        """What the encoder reads of a text."""
        whole = self.tokenizer.encode_whole(source.prefix + text)
        ids = [
            source.replaced.get(index, index) if special else index
            for index, special in zip(whole.ids, whole.special_tokens_mask)
        ]
        return [*source.before_ids, *ids]

    def of(self, task: str, languages: tuple[str, str]) -> Source:
        """The way for a task.

        Args:
            languages: codes or names of source and target, "" where unknown.

        Raises:
            UsageError: a language that the model does not have, or one that it has to be told.
        """
        if task == "summarization":
            own = task_settings(self.path, task)
            default = "summarize: " if self._type == "t5" else ""
            prefix = str(own.get("prefix", default))
            return Source(prefix, settings=own, note=f'before a text stands "{prefix}"' if prefix else "")
        if task != "translation":
            return Source()
        from_, to = (language_code(code, "--to") if code else "" for code in languages)
        if not from_ and not to:
            return Source()
        if isinstance(self.tokenizer, MarianTokenizer):
            return self._marian(from_, to)
        if self._type in ("t5", "mt5", "umt5", "longt5"):
            return self._in_words(from_, to)
        if to and language_token(to, self._tokens) is not None:
            return self._by_tokens(from_, to)
        if any(language_token(code, self._tokens) for code in ("en", "de", "fr", "zh")):
            raise self._no_language(to)
        return Source(note=_untold(to))

    def _marian(self, from_: str, to: str) -> Source:
        if self._tokens:
            token = language_token(to, self._tokens) if to else None
            if token is None:
                raise self._no_language(to)
            return Source(before_ids=(self._tokens[token],))
        config = self.tokenizer.config
        for option, wanted, name in (("--from", from_, "source_lang"), ("--to", to, "target_lang")):
            own = config.get(name)
            try:
                known = language_code(str(own), name).partition("-")[0] if own else ""
            except UsageError:  # a group of languages, such as "roa"
                known = ""
            if wanted and known and wanted.partition("-")[0] != known:
                raise UsageError(
                    f"{language_name(wanted)}; this model has {language_name(known)} there.",
                    where=option,
                    why=f"tokenizer_config.json names {own}.",
                    do=f"{option} {known}",
                )
        return Source(note="" if config.get("target_lang") else _untold(to))

    def _in_words(self, from_: str, to: str) -> Source:
        """T5: "translate English to German: "."""
        codes = tuple(code.partition("-")[0] for code in (from_, to))
        named = read_config(self.path).get("task_specific_params")
        tasks = [name for name in named or {} if str(name).startswith("translation_")]
        fits = [name for name in tasks if name.split("_")[3:4] == [codes[1]] or not to]
        fits = [name for name in fits if name.split("_")[1:2] == [codes[0]] or not from_]
        if len(fits) == 1:
            own = task_settings(self.path, fits[0])
            return Source(str(own.get("prefix", "")), settings=own)
        if not from_ or not to:
            raise UsageError(
                "this model has to be told both languages.",
                where="--to" if from_ else "--from",
                do="--from en",
            )
        prefix = f"translate {language_name(from_)} to {language_name(to)}: "
        return Source(prefix, note=f'before a text stands "{prefix}"; its config names no such task.')

    def _by_tokens(self, from_: str, to: str) -> Source:
        """mBART, NLLB, M2M-100: a token for the source's language around the text, one that begins the answer."""
        target = language_token(to, self._tokens)
        assert target is not None
        whole = self.tokenizer.encode_whole("a")
        around = [index for index, special in zip(whole.ids, whole.special_tokens_mask) if special]
        names = {index: token for token, index in self._tokens.items()}
        mine = [index for index in around if _names_language(names.get(index, ""))]
        if not from_:
            own = names[mine[0]] if mine else "none"
            return Source(
                first_id=self._tokens[target], note=f"--from was not given: the text is read as {own}."
            )
        source = language_token(from_, self._tokens)
        if source is None:
            raise self._no_language(from_, "--from")
        return Source(replaced=dict.fromkeys(mine, self._tokens[source]), first_id=self._tokens[target])

    def _no_language(self, code: str, option: str = "--to") -> UsageError:
        known = sorted(self._tokens)
        shown = ", ".join([token for token in known if _names_language(token)][:SHOWN_LANGUAGES])
        return UsageError(
            f"this model has no {language_name(code)}." if code else "this model has to be told a language.",
            where=option,
            why=f"Its languages begin with {shown}.",
        )


def _names_language(token: str) -> bool:
    if token.startswith("__") or token.startswith(">>"):
        return True
    base, _, region = token.partition("_")
    return (
        base.isalpha()
        and base.islower()
        and len(base) in (2, 3)
        and region.isalpha()
        and region[:1].isupper()
    )


def _untold(to: str) -> str:
    if not to:
        return ""
    return f"its files do not say which language it writes; {language_name(to)} is not checked."
