"""What text is measured: the held-out split of a run's corpus, or texts that were given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ownlm.console import output as out
from ownlm.console.errors import Refused

if TYPE_CHECKING:
    from ownlm.corpus.shards import Corpus, Split
    from ownlm.corpus.tokenizer import Tokenizer

ENCODED_TOGETHER = 256  # texts


class Text(NamedTuple):
    """A normalised text and where it comes from.

    Args:
        name, line: its file and the line in it, counted from 1.
        is_row: it is a row of a table (JSON Lines, CSV, Parquet, …): its line ends are not those of the file.
    """

    name: str
    line: int
    text: str
    is_row: bool = False


class Encoded(NamedTuple):
    """A text as tokens [tokens], <|endoftext|> first, and its UTF-8 bytes."""

    ids: npt.NDArray[Any]
    data: bytes


def read_texts(words: Sequence[str]) -> Iterator[Text]:
    """The documents of files and folders, read and normalised as `ownlm prepare` does it.

    What is not read (binary files, empty texts, …) is counted and said at the end.
    """
    from ownlm.corpus.discover import discover, explain
    from ownlm.corpus.documents import Dropped
    from ownlm.corpus.kinds import ROW_KINDS
    from ownlm.corpus.readers.settings import ReadSettings
    from ownlm.corpus.readers.tasks import read_file

    found = discover(words)
    dropped: Counter[str] = Counter()
    for file in found.files:
        for item in read_file(file, ReadSettings()):
            if isinstance(item, Dropped):
                dropped[item.reason] += 1
                continue
            text = normalised(item.text)
            if text.isspace() or not text:
                dropped["empty text"] += 1
                continue
            yield Text(item.source, item.line, text, item.kind in ROW_KINDS)
    for reason, files, _, do in explain(found.not_read):
        out.say(f"not read: {files:,} files, {reason}" + (f" ({do})" if do else ""))
    for reason, count in dropped.items():
        out.say(f"not read: {count:,} documents, {reason}")


def normalised(text: str) -> str:
    """A text as every document of a corpus is (NFC, `\\n` line ends, no control characters)."""
    from ownlm.corpus.normalise import normalise

    return normalise(text)[0]


def encoded(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[Encoded]:
    """Texts as tokens, the tokenizer's start token before each (with ours <|endoftext|>)."""
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == ENCODED_TOGETHER:
            yield from _encode(tokenizer, batch)
            batch = []
    yield from _encode(tokenizer, batch)


def _encode(tokenizer: Tokenizer, texts: list[str]) -> Iterator[Encoded]:
    if not texts:
        return
    for text, ids in zip(texts, tokenizer.encode_batch(texts)):
        yield Encoded(np.concatenate([[tokenizer.start_id], ids]).astype(np.int64), text.encode())


def held_out(split: Split) -> Iterator[Encoded]:
    """The documents of a corpus split, as they are stored."""
    for number in range(split.num_documents):
        ids = split.document(number)
        yield Encoded(ids, split.corpus.tokenizer.decode_bytes(ids[1:]))


def run_corpus(run: dict[str, Any], path: Path) -> Corpus:
    """The corpus that a run was trained on, found through its run.json.

    Args:
        run: content of run.json. path: its folder, for messages.

    Raises:
        Refused: the model comes from elsewhere, or the corpus is gone or was made anew.
    """
    from ownlm.corpus.shards import MANIFEST, Corpus

    do = f"ownlm evaluate {path} YOUR_TEXT.txt"
    data = run.get("data") or {}
    if "corpus" not in data:
        raise Refused("run.json names no corpus: there is no held-out text to read.", where=path, do=do)
    folder = Path(data["corpus"])
    if not (folder / MANIFEST).is_file():
        raise Refused(f"the corpus of this run is not at {folder} any more.", where=path, do=do)
    corpus = Corpus.open(folder)
    if corpus.hash != data.get("hash"):
        raise Refused(
            f"the corpus at {folder} was changed after this run.",
            where=path,
            why="Its held-out text may be part of what the model was trained on.",
            do=do,
        )
    return corpus
