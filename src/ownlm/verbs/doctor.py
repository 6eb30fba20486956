"""`ownlm doctor`: what this machine has, how fast it is, what it can train and run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownlm.console import output
from ownlm.console.settings import verb

if TYPE_CHECKING:
    from ownlm.machine.examine import Examination


@verb
def doctor(*, json: bool = False) -> Examination:
    """Look at this machine: device, cores, memory, disk, versions, extras; measure it; say what it can do.

    Measures matrix multiplication and memory reading for about five seconds. The hours to train and the speed
    to run models are predicted from these two figures, not measured.

    Args:
        json: print everything as JSON.
    """
    from ownlm.machine.examine import examine
    from ownlm.training.memory import bytes_to_train

    output.say("measuring matrix multiplication and memory for about five seconds …")
    found = examine(Path.cwd(), bytes_to_train)
    if output.from_cli():
        if json:
            output.result_json(found.to_dict())
        else:
            _show(found)
    return found


def _show(found: Examination) -> None:
    output.result_table("This machine", ["", ""], _machine_rows(found))
    output.result_table("\nMeasured just now", ["", ""], _measured_rows(found.measured), numeric=(1,))
    rows = [
        (extra["name"], _missing(extra), extra["command"] if extra["missing"] else "")
        for extra in found.extras
    ]
    if rows:
        output.result_table("\nExtras", ["extra", "state", "to get it"], rows)
    for problem in found.problems:
        output.result(f"note: {problem}")
    _show_predictions(found.predicted, found.device["type"])
    output.next_commands("ownlm quickstart", "ownlm prepare YOUR_TEXTS -o corpus")


def _machine_rows(found: Examination) -> list[tuple[str, str]]:
    memory, cores = found.memory, found.cores
    limit = f", limited to {output.human_bytes(memory['limit'])} by a cgroup" if memory["limit"] else ""
    bits = "fp32 and bf16" if "bfloat16" in found.dtypes else "fp32 (bf16 would be emulated, slowly)"
    versions = found.versions
    device = found.device
    gpu = (
        f" ({device['name']}), processor {device['cpu']}"
        if device["type"] != "cpu"
        else f": {device['name']}"
    )
    return [
        ("device", device["type"] + gpu),
        ("cores", f"{cores['usable']} usable, {cores['physical']} physical"),
        (
            "memory",
            f"{output.human_bytes(memory['total'] or 0)}, "
            f"{output.human_bytes(memory['available'] or 0)} available{limit}",
        ),
        ("disk", f"{output.human_bytes(found.disk_free)} free here"),
        ("arithmetic", bits),
        ("software", f"Python {versions['python']}, torch {versions['torch']}, {versions['system']}"),
        ("compiler", found.compiler or "none (c++, g++, clang++, cl): only needed to build native kernels"),
    ]


def _measured_rows(measured: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for dtype, sizes in measured["matmul"].items():
        short = {"float32": "fp32", "bfloat16": "bf16"}[dtype]
        rows += [(f"matmul {short}, {n} × {n}", f"{rate / 1e9:,.0f} GFLOP/s") for n, rate in sizes.items()]
        slow = measured["not_measured"].get(dtype, [])
        rows += [(f"matmul {short}, {n} × {n}", "not measured: takes too long") for n in slow]
    return [*rows, ("reading memory", f"{measured['read_bandwidth'] / 1e9:.1f} GB/s")]


def _missing(extra: dict[str, Any]) -> str:
    if not extra["missing"]:
        return "present"
    return (
        "missing"
        if len(extra["missing"]) == len(extra["packages"])
        else f"missing {', '.join(extra['missing'])}"
    )


def _show_predictions(predicted: dict[str, Any], device: str) -> None:
    assumed = predicted["assumed"]
    output.result("\nWhat this machine can do (predicted from what was just measured)")
    rows = [
        (
            row["size"],
            output.human_count(row["parameters"]),
            output.human_count(row["tokens"]),
            output.human_seconds(row["hours"] * 3600),
            output.human_bytes(row["memory"]) + ("" if row["fits"] else ": does not fit"),
        )
        for row in predicted["training"]
    ]
    headers = ["train", "parameters", "tokens", "time (predicted)", "memory"]
    output.result_table("", headers, rows, numeric=(1, 2, 3, 4))
    output.result(
        f"  {assumed['tokens_per_parameter']} tokens a parameter, vocabulary {assumed['vocab_size']:,}, "
        f"context {assumed['context']}, {assumed['dtype']} on {device},\n"
        f"  at an assumed {assumed['utilisation']:.0%} of the matmul rate measured nearest to its width.\n"
        "  Less text and less time give a model too."
    )
    rows = [
        (
            row["size"],
            row["weights"],
            f"at most {row['tokens_per_second']:.1f}" if row["fits"] else "does not fit",
            output.human_bytes(row["memory"]),
            output.human_bytes(row["key_value_memory"]),
        )
        for row in predicted["running"]
    ]
    headers = ["run", "weights", "tokens/s (predicted)", "memory", "of it key-value cache"]
    output.result_table("", headers, rows, numeric=(2, 3, 4))
    output.result(
        f"  One reader, on the CPU, context {assumed['run_context']:,} tokens, half full, a 16-bit cache;\n"
        "  every weight is read once a token."
    )
