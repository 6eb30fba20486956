"""Checkpoints that a run goes on from as if it had never stopped: weights, optimizer, step. Nothing is pickled.

Data order, dropout and sampling are functions of (seed, step), so the step is all there is to remember of them.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ownlm.console.errors import OwnlmError, Refused
from ownlm.corpus.tokenizer import Tokenizer
from ownlm.json_files import read_object
from ownlm.model.checkpoint import load_model, save_model, save_tensors, write_json
from ownlm.model.transformer import Transformer
from ownlm.training.optimizer import Optimizer


class Weights(Protocol):
    """How what is trained is written to a folder and read from it."""

    def save(self, folder: Path) -> None:
        """Write it in fp32."""

    def load(self, folder: Path) -> None:
        """Put what `save` wrote into the model in memory.

        Raises:
            OwnlmError: damaged, or of another model.
        """


class WholeModel:
    """All weights of a model.

    Args:
        ids: bos, eos and pad ids for config.json.
    """

    def __init__(self, model: Transformer, ids: dict[str, int]) -> None:
        self.model, self.ids = model, ids

    def save(self, folder: Path) -> None:
        """As a model folder."""
        save_model(self.model, folder, self.ids, dtype=torch.float32)

    def load(self, folder: Path) -> None:
        """See `Weights`."""
        stored = load_model(folder, device=next(self.model.parameters()).device)
        if stored.config != self.model.config:
            raise Refused("the checkpoint is of another model than the run.", where=folder)
        self.model.load_state_dict(stored.state_dict())


def save_checkpoint(
    run: Path,
    step: int,
    weights: Weights,
    optimizer: Optimizer,
    state: dict[str, object],
    logged: Callable[[], None],
) -> Path:
    """Write `checkpoints/step-N/` under another name first: a kill or a full disk leaves the older ones whole.

    `logged` is called when all of it is written, before it has its name: a run that goes on from it has the log line,
    and one that goes on from the one before cuts it.
    """
    final = run / "checkpoints" / f"step-{step}"
    temporary = final.with_name(final.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        weights.save(temporary)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            if (run / name).exists():
                shutil.copyfile(run / name, temporary / name)
        save_tensors(optimizer.state_tensors(), temporary / "optimizer.safetensors")
        write_json(temporary / "state.json", {"step": step, **state})
        logged()
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if final.exists():  # moved first: a kill between the two leaves one of them whole
        aside = final.with_name(f"{final.name}.old.tmp")
        shutil.rmtree(aside, ignore_errors=True)
        final.replace(aside)
        temporary.replace(final)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        temporary.replace(final)
    return final


def token_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """bos, eos and pad ids of a model of ours, for config.json."""
    ends = tokenizer.eos_id
    return {"bos_token_id": ends, "eos_token_id": ends, "pad_token_id": tokenizer.pad_id}


def checkpoints(run: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = []
    for path in (run / "checkpoints").glob("step-*"):
        match = re.fullmatch(r"step-(\d+)", path.name)
        if match and (path / "state.json").exists():
            found.append((int(match[1]), path))
    return [path for _, path in sorted(found)]


def prune(run: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints, and halves that a kill left."""
    for path in checkpoints(run)[: -keep or None]:
        shutil.rmtree(path)
    for path in (run / "checkpoints").glob("*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def load_checkpoint(folder: Path, weights: Weights, optimizer: Optimizer) -> dict[str, object]:
    """Put a checkpoint's weights and optimizer state into memory; return its state.json."""
    try:
        state: dict[str, object] = read_object(folder / "state.json")
        weights.load(folder)
        tensors = load_file(folder / "optimizer.safetensors")
        missing = [name for name in ("step", "seconds") if name not in state]
        missing += [name for name in optimizer.state_tensors() if name not in tensors]
    except FileNotFoundError as error:
        raise _damaged(folder, f"Missing: {error.filename}.") from None
    except (OwnlmError, SafetensorError) as error:
        raise _damaged(folder, str(error)) from None
    if missing:
        raise _damaged(folder, f"Missing: {missing[0]}.")
    optimizer.load_state_tensors(tensors)
    return state


def _damaged(folder: Path, why: str) -> Refused:
    aside = folder.with_name(folder.name + "-damaged")
    return Refused(
        "the checkpoint is damaged.",
        where=folder,
        why=why,
        do=f"mv {shlex.quote(str(folder))} {shlex.quote(str(aside))}, then --resume goes on from the one before",
    )
