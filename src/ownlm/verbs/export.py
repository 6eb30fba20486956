"""`ownlm export`: a model as a folder that other tools open, in another dtype, from another format, to the hub."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, Literal

from ownlm.console import output as out
from ownlm.console.errors import Refused, UsageError
from ownlm.console.settings import verb

MARK = ".ownlm-export"  # in a folder that an export made: it may replace it
UNFINISHED = "ownlm export has begun here and is not done\n"
FINISHED = "made by ownlm export; may be replaced by it\n"


@verb
def export(
    source: str,
    target: Path,
    *,
    dtype: Literal["float32", "bfloat16", "float16", "int8", "int4"] | None = None,
    text: str | None = None,
    max_shard_size: str = "5GB",
    tokenizer: Path | None = None,
    merge_adapter: bool = False,
    to: str | None = None,
    private: bool = True,
    overwrite: bool = False,
    json: bool = False,
) -> dict[str, Any]:
    """Write a model as a Hugging Face folder.

    SRC is a run folder, `last`, a local model folder, a name on the hub, or a .bin file of llama2.c. DST is a
    new folder that transformers, vLLM and llama.cpp's converter open; weights are safetensors, README.md says
    where they come from. An adapter becomes a model of its own with --merge-adapter. Weights are read and
    written one file at a time, so memory stays below the size of a shard.

    Args:
        source: the model.
        target: the folder to write.
        dtype: of the weights: float32, bfloat16, float16; int8 or int4, which only ownlm opens; as they are stored
            when not given.
        text: with int8 or int4: a file or folder on which perplexity is measured before and after; the run's held-out
            text when not given.
        max_shard_size: of one file, such as 5GB or 500MB; larger models become several files with an index.
        tokenizer: for a .bin file: its tokenizer, a tok*.bin or tokenizer.model.
        merge_adapter: write the base of an adapter with the adapter's changes in its weights.
        to: send the folder to the hub as well: hub:owner/name.
        private: whether a repository that is made there is private.
        overwrite: replace what an earlier export left in DST.
        json: print what was done as JSON.
    """
    from ownlm.export.card import quality_lines, write_card
    from ownlm.verbs import _quantised

    shard_bytes = parse_size(max_shard_size)
    repository = hub_name(to)
    path = Path(source)
    is_bin = path.is_file() and path.suffix == ".bin"
    if tokenizer is not None and not is_bin:
        raise UsageError("only for a .bin file; other models bring their tokenizer.", where="--tokenizer")
    _quantised.refuse_options(dtype, text, is_bin=is_bin, merges=merge_adapter)
    if is_bin:
        folder = path
    else:
        from ownlm.loaded import resolve

        folder = resolve(source)
    _check_adapter(folder, source, target, merge_adapter)
    claim(target, folder, overwrite)
    try:
        if is_bin:
            done = _from_llama2c(path, target, dtype, shard_bytes, tokenizer)
        elif merge_adapter:
            done = _merged(folder, target, dtype, shard_bytes)
        elif dtype in ("int8", "int4"):
            done = _quantised.quantise(folder, target, dtype, shard_bytes, text)
            done |= {"revision": _revision(folder)}
        else:
            from ownlm.export.rewrite import rewrite

            done = rewrite(folder, target, dtype, shard_bytes) | {"revision": _revision(folder)}
        write_card(folder, target, source, done)
        (target / MARK).write_text(FINISHED, encoding="utf-8")
    except BaseException:
        discard(target)
        raise
    done = {"model": str(target), "source": source, **done}
    if repository:
        from ownlm.export.push import push

        done["hub"] = push(target, repository, private)
    if out.from_cli():
        out.say(f"{done['tensors']:,} tensors, {out.human_bytes(done['bytes'])}, written to {target}")
        if done.get("largest_change"):
            out.say(f"largest change of a weight by rounding to {dtype}: {done['largest_change']:.3g}")
        for line in quality_lines(done):
            out.say(line)
        if json:
            out.result_json(done)
        place = shlex.quote(str(target))
        out.next_commands(f'ownlm generate {place} "The"', f"ownlm evaluate {place} YOUR_TEXT.txt")
    return done


def _check_adapter(folder: Path, source: str, target: Path, merge_adapter: bool) -> None:
    """An adapter is merged, and nothing else is."""
    from ownlm.locate import holds_adapter

    adapter = holds_adapter(folder)
    if merge_adapter and not adapter:
        raise Refused("no adapter: there is nothing to merge.", where=folder, do="leave out --merge-adapter")
    if adapter and not merge_adapter:
        raise Refused(
            "an adapter: a change of another model, which is no model by itself.",
            where=folder,
            do=shlex.join(["ownlm", "export", source, str(target), "--merge-adapter"]),
        )


def _merged(folder: Path, target: Path, dtype: str | None, shard_bytes: int) -> dict[str, Any]:
    from ownlm.adapter_bases import base_of, refuse_other_base
    from ownlm.export.merge import merge
    from ownlm.model.lora_files import read_adapter

    adapter = read_adapter(folder)
    base = base_of(folder, adapter.config)
    refuse_other_base(folder, base)
    return merge(adapter, base, target, dtype, shard_bytes)


def _revision(folder: Path) -> str | None:
    """The commit of the hub that a folder holds: of the shared cache, or as `ownlm pull` noted it."""
    from ownlm.corpus.special_tokens import read_json
    from ownlm.verbs.pull import FACTS

    if folder.parent.name == "snapshots":
        return folder.name
    commit = read_json(folder / FACTS).get("commit")
    return commit if isinstance(commit, str) else None


def _from_llama2c(
    file: Path, target: Path, dtype: str | None, shard_bytes: int, tokenizer: Path | None
) -> dict[str, Any]:
    from ownlm.export import llama2c
    from ownlm.model.stored import StoredWeights

    config = llama2c.read_header(file)
    found = tokenizer or llama2c.find_tokenizer(file)
    if found is None:
        raise UsageError(
            "a .bin file holds no tokenizer, and none lies beside it.",
            where=file,
            do=f"ownlm export {file} {target} --tokenizer tok{config.vocab_size}.bin",
        )
    llama2c.write_tokenizer(found, config, target)
    llama2c.convert(file, target, dtype, shard_bytes)  # config.json last: a folder without it is no model
    with StoredWeights(target) as stored:
        return {
            "tensors": len(stored.entries),
            "bytes": stored.bytes,
            "dtype": str(next(iter(stored.entries.values())).dtype).removeprefix("torch."),
            "format": f"llama2.c (`{file.name}` with `{found.name}`)",
        }


def parse_size(text: str) -> int:
    """'5GB' -> 5,000,000,000."""
    match = re.fullmatch(r"\s*([\d.]+)\s*([kKmMgGtT]?)i?[bB]?\s*", text)
    try:
        size = (
            int(float(match[1]) * 1000 ** ("kmgt".index(match[2].lower()) + 1 if match[2] else 0))
            if match
            else 0
        )
    except ValueError:
        size = 0
    if size < 1:
        raise UsageError(f"{text!r} is no size.", where="--max-shard-size", do="--max-shard-size 5GB")
    return size


def hub_name(to: str | None) -> str | None:
    """The repository that `--to hub:owner/name` means."""
    if to is None:
        return None
    from ownlm.hub import parse

    name = to.removeprefix("hub:")
    found = parse(name) if name != to and name.count("/") == 1 and "@" not in name else None
    if found is None:
        raise UsageError(f"{to!r} is no place to send a model to.", where="--to", do="--to hub:OWNER/NAME")
    return found.repository


def claim(target: Path, source: Path, overwrite: bool) -> None:
    """Make the folder; one that holds something else is never touched."""
    if (target.exists() or target.is_symlink()) and not target.is_dir():
        what = "is a file; a folder is written." if target.exists() else "is a link to nothing."
        raise UsageError(what, where=target, do="another DST")
    if target.exists() and source.exists() and target.resolve() == source.resolve():
        raise UsageError("source and target are the same folder.", where=target, do="another DST")
    if target.is_dir() and any(target.iterdir()):
        mark = target / MARK
        if not mark.is_file():
            raise UsageError(
                "holds other files; nothing was changed.", where=target, do="a new folder for DST"
            )
        if not overwrite:
            begun = mark.read_text(encoding="utf-8", errors="replace") == UNFINISHED
            what = "an unfinished export is there." if begun else "an earlier export is there."
            raise UsageError(what, where=target, do="--overwrite, or another DST")
        own = set(written_files(target))
        others = sorted(path.name for path in target.iterdir() if path not in own)
        if others:
            raise UsageError(
                f"holds files that no export wrote ({', '.join(others[:3])}); nothing was changed.",
                where=target,
                do="move them elsewhere, or another DST",
            )
        discard(target)
    target.mkdir(parents=True, exist_ok=True)
    (target / MARK).write_text(UNFINISHED, encoding="utf-8")


def written_files(target: Path) -> list[Path]:
    """Files in a folder whose names an export gives."""
    from ownlm.export.rewrite import COMPANIONS

    names = (MARK, "*.tmp", "model*.safetensors", "model.safetensors.index.json", "config.json", "run.json")
    found = {path for pattern in (*names, "README.md", *COMPANIONS) for path in target.glob(pattern)}
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def discard(target: Path) -> None:
    """Remove what an export wrote, and the folder when nothing is left."""
    for file in written_files(target):
        file.unlink()
    if not target.is_symlink() and not any(target.iterdir()):
        target.rmdir()
