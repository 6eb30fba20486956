"""`ownlm prepare`: files, folders or stdin -> a corpus folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ownlm.console import output as out
from ownlm.console.settings import verb

if TYPE_CHECKING:
    from ownlm.corpus.shards import Corpus


@verb
def prepare(
    sources: list[str],
    *,
    output: Path = Path("corpus"),
    vocab_size: int | None = None,
    tokenizer: str | None = None,
    tokenizer_type: Literal["bpe", "char", "word"] = "bpe",
    column: str = "text",
    documents: Literal["file", "line"] = "file",
    validation: list[str] = ["auto"],  # noqa: B006 - settings are copied, never changed
    group_by: str | None = None,
    near_duplicates: Literal["drop", "group", "off"] = "drop",
    exact_duplicates: Literal["drop", "keep"] = "drop",
    filters: list[str] = [],  # noqa: B006
    fix_mojibake: bool = False,
    exclude: list[str] = [],  # noqa: B006
    seed: int = 0,
    workers: int | None = None,
    overwrite: bool = False,
    json: bool = False,
    config: Path | None = None,
) -> Corpus:
    """Make a corpus folder out of text: cleaned, deduplicated, split, tokenized.

    SRC is any number of files, folders (read recursively, as .gitignore says), globs, or - for stdin:
    plain text, Markdown, HTML, source code, JSON and JSON Lines, CSV, Parquet, each also gzip, xz or zstd.
    A command that was interrupted goes on when it is typed again.

    Args:
        sources: files, folders, globs, or - for stdin.
        output: the corpus folder.
        vocab_size: number of token ids; chosen from the corpus when not given.
        tokenizer: use this one: a run folder, a corpus folder, a tokenizer.json, or a name on the hub.
        tokenizer_type: bpe (byte-level), char or word (both fall back to bytes).
        column: the column (JSON key) that holds the text.
        documents: a plain text file is one document (file), or each of its lines is (line).
        validation: hash:0.05 (a share of the documents), tail:0.1 (the end of each), none, or files and
            folders that are never trained on (may be repeated); auto is hash:0.05, and tail:0.1 with fewer
            than 20 documents.
        group_by: what is never split between training and validation: folder, a column, or re:PATTERN
            with one group, searched in the path.
        near_duplicates: drop all but the first of nearly equal texts, or group them on one side, or off.
        exact_duplicates: drop all but the first of equal texts, or keep them.
        filters: a quality filter by name (may be repeated); docs/prepare.md lists them.
        fix_mojibake: repair text that was once decoded wrongly (needs the extra data).
        exclude: leave out what matches this pattern, as in .gitignore (may be repeated).
        seed: of the split and the tokenizer's sample.
        workers: processes; when not given all cores, or one for little text.
        overwrite: replace a corpus that is in the output folder.
        json: print the manifest on stdout.
        config: a YAML file with these settings.
    """
    from ownlm.corpus.pipeline import prepare_corpus
    from ownlm.corpus.settings import PrepareSettings
    from ownlm.corpus.summary import show

    outcome = prepare_corpus(
        PrepareSettings(
            tuple(sources),
            output,
            vocab_size=vocab_size,
            tokenizer=tokenizer,
            tokenizer_type=tokenizer_type,
            column=column,
            documents=documents,
            validation=tuple(validation),
            group_by=group_by,
            near_duplicates=near_duplicates,
            exact_duplicates=exact_duplicates,
            filters=tuple(filters),
            fix_mojibake=fix_mojibake,
            exclude=tuple(exclude),
            seed=seed,
            workers=workers,
            overwrite=overwrite,
        )
    )
    show(outcome)
    corpus = outcome.corpus
    out.next_commands(f"ownlm pretrain {shlex.quote(str(corpus.path))} -o run")
    if json and out.from_cli():
        out.result_json(corpus.manifest)
    return corpus
