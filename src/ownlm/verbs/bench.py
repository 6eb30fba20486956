"""`ownlm bench`: how quickly a model reads prompts and writes, beside what the memory could give."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from ownlm.console import output as out
from ownlm.console.errors import Refused, UsageError
from ownlm.console.settings import verb

if TYPE_CHECKING:
    from ownlm.loaded import LoadedModel
    from ownlm.verbs._speed import Case, Speed

LEAST_READ = 2**22  # bytes: reading less takes no longer than starting to
TOKENS, COUNT, LIST = "--prompt-tokens", "--repetitions", "a number, or several with commas: 1,4,16"


@verb
def bench(
    model: Any,
    *,
    dtype: Literal["auto", "float32", "bfloat16", "int8", "int4"] = "auto",
    prompt_tokens: int = 512,
    new_tokens: int = 128,
    batch: int | str = "1,4,16",
    depth: int | str = "0",
    repetitions: int = 5,
    threads: int | None = None,
    device: str = "auto",
    format: Literal["table", "csv", "json"] = "table",
    json: bool = False,
) -> dict[str, Any]:
    """Tokens a second of a model: reading a prompt (pp512) and writing (tg128), alone and several at once.

    The lines are those of llama-bench: mean and standard deviation of the repetitions, after one that does not count.
    Tokens of all sequences of a batch are added up. Sampling is in the time, turning text into tokens is not.

    Beside tg stands how many bytes of weights and cache were read a second, and which share that is of the rate at
    which this machine reads as many bytes again and again, measured before and after.

    Args:
        model: a run or checkpoint folder, `last` (the newest run below this folder), or a name on the hub.
        dtype: of the weights; auto: as the model is stored.
        prompt_tokens: of each prompt; 0 leaves pp out.
        new_tokens: to write for each sequence; 0 leaves tg out.
        batch: sequences at once, with commas.
        depth: tokens that are in the cache before the clock starts, in steps of 64, with commas.
        repetitions: of each line.
        threads: of the processor; all physical cores when not given.
        device: cpu, cuda, mps, or auto.
        format: table, csv or json.
        json: the same as --format json.
    """
    from ownlm.loaded import load

    if json and format == "csv":
        raise UsageError("asks for csv, --json for JSON.", where="--format", do="one of the two")
    for name, value, least in (
        (TOKENS, prompt_tokens, 0),
        ("--new-tokens", new_tokens, 0),
        (COUNT, repetitions, 1),
        ("--threads", 1 if threads is None else threads, 1),
    ):
        if value < least:
            raise UsageError(f"{value} is not possible; it must be at least {least}.", where=name)
    batches, depths = _numbers("--batch", batch, 1), _numbers("--depth", depth, 0)
    if not prompt_tokens and not new_tokens:
        raise UsageError("0, and --new-tokens too: nothing is left to measure.", where=TOKENS)
    loaded = load(model, device=device, dtype=dtype)  # loads torch only when there is such a model
    from ownlm.headed import HeadedModel
    from ownlm.headed_refusal import refusal
    from ownlm.masked import MaskedModel
    from ownlm.verbs._speed import Case

    if isinstance(loaded, MaskedModel):
        raise Refused("a masked model fills gaps; it neither reads ahead nor writes.", where=loaded.path)
    if isinstance(loaded, HeadedModel):
        raise refusal(loaded.path, loaded.kind, "neither reads ahead nor writes")
    kinds: list[tuple[Literal["pp", "tg"], int]] = [("pp", prompt_tokens), ("tg", new_tokens)]
    cases = [Case(kind, n, b, d) for kind, n in kinds if n for b in batches for d in depths]
    _check_window(loaded, cases)
    with _threads(threads) as used:
        found = _measured(loaded, cases, repetitions, used)
    if out.from_cli():
        _show(found, "json" if json else format)
        out.next_commands(f"ownlm generate {shlex.quote(str(loaded.path))} PROMPT")
    return found


def _numbers(option: str, given: int | str, least: int) -> list[int]:
    """`"1,4,16"` -> [1, 4, 16]."""
    words = str(given).split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise UsageError(f'"{given}" is not {LIST}.', where=option)
    numbers = sorted({int(word) for word in words})
    if numbers[0] < least:
        raise UsageError(f"{numbers[0]} is not possible; it must be at least {least}.", where=option)
    return numbers


def _check_window(loaded: LoadedModel, cases: list[Case]) -> None:
    """Refuse depths that are no whole blocks, and what the context window does not hold."""
    from ownlm.engine.backend import BLOCK

    for case in cases:
        if case.depth % BLOCK:
            raise UsageError(
                f"{case.depth} is no multiple of {BLOCK}, the tokens of a block of the cache.",
                where="--depth",
                why="Only whole blocks stay in the cache from one repetition to the next.",
                do=f"--depth {-(-case.depth // BLOCK) * BLOCK}",
            )
    longest = max(cases, key=lambda case: case.longest)
    if longest.longest > loaded.context:
        half = loaded.context // 2
        raise Refused(
            f"{longest.test} at depth {longest.depth:,} takes {longest.longest:,} tokens of context; "
            f"the model has {loaded.context:,}.",
            where=loaded.path,
            do=f"ownlm bench {shlex.quote(str(loaded.path))} --prompt-tokens {min(half, 512)} "
            f"--new-tokens {min(half, 128)} --depth 0",
        )


@contextmanager
def _threads(wanted: int | None) -> Iterator[int]:
    """The processor threads of what is computed inside; as before afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(wanted or before)
    try:
        yield wanted or before
    finally:
        torch.set_num_threads(before)


def _measured(loaded: LoadedModel, cases: list[Case], repetitions: int, threads: int) -> dict[str, Any]:
    """All figures: what was measured on what, and one row a case."""
    from ownlm.machine import measure as machine
    from ownlm.machine.cpu import cpu_name
    from ownlm.model.config import ModelConfig
    from ownlm.verbs._speed import NotMeasured, measure, read_bytes

    engine, backend = loaded.engine, loaded.engine.backend
    config = getattr(backend, "config", None)
    read = read_bytes(backend, 1, 0)
    on_cpu = str(backend.device).startswith("cpu")

    def bandwidth() -> float | None:
        known = on_cpu and read is not None and any(case.kind == "tg" for case in cases)
        return machine.read_bandwidth(size=max(int(read or 0), LEAST_READ)) if known else None

    before, rows = bandwidth(), []
    for case in cases:
        try:
            speed, why = measure(engine, case, repetitions), ""
            out.say(f"{_named(case.test, case.batch, case.depth)}: {speed.mean:,.1f} tokens/s")
        except NotMeasured as reason:
            speed, why = None, str(reason)
        rows.append(_row(case, speed, why))
    ceiling = max(rate for rate in (before, bandwidth(), 0.0) if rate is not None) or None
    for row in rows:
        known = ceiling and row["bytes_per_second"]
        row["share_of_read_bandwidth"] = row["bytes_per_second"] / ceiling if known else None
    if all(row["not_measured"] for row in rows):
        raise Refused(f"nothing could be measured: {rows[0]['not_measured']}.", where=loaded.path)
    return {
        "model": str(loaded.path),
        "parameters": config.num_parameters() if isinstance(config, ModelConfig) else None,
        "weight_bytes": backend.weight_bytes,
        "backend": backend.name,
        "dtype": backend.dtype,
        "device": str(backend.device),
        "cpu": cpu_name(),
        "threads": threads,
        "repetitions": repetitions,
        "read_bytes": None if read is None else round(read),
        "read_bandwidth": ceiling,
        "rows": rows,
    }


def _row(case: Case, speed: Speed | None, why: str) -> dict[str, Any]:
    """A line of the table; `not_measured` says why there are no figures."""
    return {
        "test": case.test,
        "batch": case.batch,
        "depth": case.depth,
        "tokens_per_second": speed and speed.mean,
        "deviation": speed and speed.deviation,
        "samples": speed.samples if speed else [],
        "bytes_per_second": speed and speed.bytes_per_second,
        "share_of_read_bandwidth": None,
        "not_measured": why,
    }


def _named(test: str, batch: int, depth: int) -> str:
    return f"{test}, batch {batch}, depth {depth}"


def _show(found: dict[str, Any], format: str) -> None:
    """The figures on standard output; what could not be measured also in words."""
    if format == "json":
        out.result_json(found)
    elif format == "csv":
        out.result(_csv(found), end="")
    else:
        _show_table(found)
    for row in found["rows"]:
        if row["not_measured"]:
            what = _named(row["test"], row["batch"], row["depth"])
            out.warn(f"{what} was not measured: {row['not_measured']}")


def _csv(found: dict[str, Any]) -> str:
    """One line a case, each with all that the figures depend on; samples are in the JSON."""
    facts = {name: value for name, value in found.items() if name != "rows"}
    rows = [{**facts, **{k: v for k, v in row.items() if k != "samples"}} for row in found["rows"]]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _show_table(found: dict[str, Any]) -> None:
    size = out.human_bytes(found["weight_bytes"])
    count = f"{out.human_count(found['parameters'])} parameters, " if found["parameters"] else ""
    out.result(f"{found['cpu']}, {found['threads']} threads; device {found['device']}")
    out.result(f"{found['model']}: {count}{size} of weights; backend {found['backend']}, {found['dtype']}")
    if found["read_bandwidth"]:
        read, rate = out.human_bytes(found["read_bytes"]), found["read_bandwidth"] / 1e9
        out.result(f"reading {read} again and again, as a step does: {rate:.1f} GB/s")
    elif any(row["test"].startswith("tg") for row in found["rows"]):
        reason = "parts of this model are not known" if found["read_bytes"] is None else "not the processor's"
        out.result(f"share of the read bandwidth: not measured ({reason})")
    rows = []
    for row in found["rows"]:
        speed, rate, share = (
            row[name] for name in ("tokens_per_second", "bytes_per_second", "share_of_read_bandwidth")
        )
        figure = "not measured" if speed is None else f"{speed:,.2f} ± {row['deviation']:,.2f}"
        cells = ["" if rate is None else f"{rate / 1e9:.1f}", "" if share is None else f"{share:.0%}"]
        rows.append((row["test"], row["batch"], row["depth"], figure, *cells))
    headers = ["test", "batch", "depth", "tokens/s", "GB/s", "of read bandwidth"]
    out.result_table("", headers, rows, numeric=(1, 2, 3, 4, 5))
