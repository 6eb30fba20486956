"""The run folder: run.json, the model card, and the rules about which folders may be written to."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ownlm import __version__
from ownlm.console.errors import OwnlmError, UsageError, is_disk_full
from ownlm.console.lock import LOCK
from ownlm.json_files import read_object
from ownlm.locate import RUN_FILE
from ownlm.model.checkpoint import write_json


class Run:
    """A run folder on disk; `os.fspath` gives its path, so it can be passed on to every verb.

    Args:
        path: the folder.
        content: what its run.json would hold, for a run that was only planned (`dry_run`).
    """

    def __init__(self, path: Path, content: dict[str, Any] | None = None) -> None:
        self.path = path
        self.content: dict[str, Any] = read_run(path) if content is None else content

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def result(self) -> dict[str, Any]:
        """The metrics of the full validation pass: loss, perplexity, bits_per_byte; empty before it."""
        return self.content.get("result", {})


def read_run(path: Path) -> dict[str, Any]:
    """run.json of a run folder.

    Raises:
        UsageError: there is none. Refused: it is damaged.
    """
    try:
        return read_object(path / RUN_FILE)
    except FileNotFoundError:
        raise UsageError(f"not a run folder (no {RUN_FILE}).", where=path, do="ownlm runs") from None


def write_run(path: Path, content: dict[str, Any]) -> None:
    """Write run.json atomically."""
    write_json(path / "run.json", content)


def refuse_output(path: Path, overwrite: bool) -> None:
    """Refuse an output folder that `claim_output` would refuse; touches nothing.

    Raises:
        UsageError: it holds a run (without `overwrite`), or files that are not a run.
    """
    if not path.exists():
        return
    if not path.is_dir():
        raise UsageError("the output is a file, a folder is needed.", where=path, do="another -o")
    if all(inside.name == LOCK for inside in path.iterdir()):
        return
    if not (path / "run.json").exists():
        raise UsageError(
            "the output folder holds other files; nothing was touched.",
            where=path,
            do="an empty or new folder for -o",
        )
    if not overwrite:
        done = read_run(path).get("finished")
        raise UsageError(
            "there is a run in this folder already."
            if done
            else "there is an unfinished run in this folder.",
            where=path,
            do="another -o, or --overwrite" if done else "--resume to go on with it, or --overwrite",
        )


@contextmanager
def full_disk_told(path: Path) -> Iterator[None]:
    """Inside it, a disk that is full before step 1 is said with what helps."""
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise OwnlmError(
            "the disk is full; no step was made.",
            where=error.filename or path,
            do="free some space, then the same command with --overwrite",
        ) from None


def claim_output(path: Path, overwrite: bool) -> None:
    """Make the output folder, or empty it of the run that it holds; a folder with other content is never touched.

    Raises:
        UsageError: see `refuse_output`.
    """
    refuse_output(path, overwrite)
    path.mkdir(parents=True, exist_ok=True)
    for name in ("checkpoints", "tensorboard", "scores"):
        shutil.rmtree(path / name, ignore_errors=True)
    for name in (
        "run.json",
        "log.jsonl",
        "report.html",
        "facts.json",
        "model.safetensors",
        "config.json",
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
    ):
        (path / name).unlink(missing_ok=True)


def environment(device: str, threads: int) -> dict[str, Any]:
    """What the run ran on; nothing personal (no user, host or path)."""
    import numpy
    import torch

    from ownlm.machine.cpu import cpu_name

    return {
        "ownlm": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "gpu": torch.cuda.get_device_name() if device.startswith("cuda") else None,
        "threads": threads,
    }


def program(world_size: int) -> str:
    """What stands before the verb in a command: ownlm, started by torchrun where it takes several processes."""
    return "ownlm" if world_size == 1 else f"torchrun --nproc-per-node {world_size} -m ownlm"


def command_line(world_size: int) -> str:
    """The command as it was typed, or 'Python' when the verb was called from a program."""
    from ownlm.console.output import from_cli

    return (
        " ".join([program(world_size), *map(_quoted, sys.argv[1:])])
        if from_cli()
        else "Python: ownlm.pretrain(...)"
    )


def _quoted(argument: str) -> str:
    if sys.platform == "win32":
        return f'"{argument}"' if " " in argument else argument
    import shlex

    return shlex.quote(argument)


def repeat_command(corpus: Path, output: Path, settings: dict[str, Any], plan: Any, size: str) -> str:
    """The `--max-steps` command that trains exactly this plan on this machine, into the folder `output`."""
    from ownlm.console.command import option_name

    words = [
        f"{program(plan.world_size)} pretrain",
        _quoted(os.fspath(corpus)),
        "-o",
        _quoted(str(output)),
        "--size",
        size,
    ]
    words += ["--max-steps", str(plan.max_steps), "--context", str(plan.context)]
    words += ["--per-device-train-batch-size", str(plan.per_device_train_batch_size)]
    words += ["--gradient-accumulation-steps", str(plan.gradient_accumulation_steps)]
    skip = {"corpus", "output", "size", "minutes", "max_steps", "tokens", "num_train_epochs", "context", "config", "json",
            "per_device_train_batch_size", "gradient_accumulation_steps", "resume", "overwrite", "dry_run"}  # fmt: skip
    for name, (value, default) in settings.items():
        if name in skip or value == default:
            continue
        values = value if isinstance(value, list) else [value]
        for one in values:
            words += [option_name(name)] if one is True else [option_name(name), _quoted(str(one))]
    return " ".join(words)


def write_model_card(path: Path, run: dict[str, Any]) -> None:
    """README.md in the hub's form: what the model is, was trained on, scores, and what it is not for."""
    model, data, plan = run["model"], run["data"], run["plan"]
    result = run.get("result") or {}
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags: [ownlm]",
        "---",
        f"# {path.resolve().name}",
        "",
        f"A language model of {model['parameters']:,} parameters ({model['embedding_parameters']:,} of them embeddings and head), "
        f"architecture {model['architecture']}, trained from "
        + ("random weights" if not run["settings"].get("from_") else f"`{run['settings']['from_']}`")
        + f" with ownlm {run['ownlm']}. It continues text; it was not taught to answer or to follow instructions.",
        "",
        "## Training",
        f"- text: {data['train_bytes']:,} bytes, {data['train_tokens']:,} tokens; corpus hash `{data['hash'][:16]}`",
        f"- steps: {plan['max_steps']:,} of {plan['tokens_per_step']:,} tokens, context {plan['context']}, seed {plan['seed']}, {plan['dtype']} products",
        f"- time: {run['cost']['seconds']:.0f} s on {run['environment']['gpu'] or run['environment']['cpu']}",
        f"- repeat: `{run['repeat']}`",
        "",
    ]
    if result:
        bits = result["bits_per_byte"]
        lines += [
            "## Measured",
            f"Bits per byte on the held-out text: {bits['value']:.4f} (95 % interval {bits['low']:.4f} to {bits['high']:.4f}, {bits['n']} documents or blocks).",
            "",
        ]
        beyond = run.get("preflight", {}).get("overlap", {}).get("beyond")
        if beyond:
            lines[-1:] = [
                f"Validated on text that overlaps with the training text, which holds {beyond}: the figure is too good.",
                "",
            ]
    lines += [
        "## Limits",
        "It knows the style and vocabulary of its training text, not facts. Check what it writes before you use it.",
        "",
    ]
    (path / "README.md").write_text("\n".join(lines), encoding="utf-8")
