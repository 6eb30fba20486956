"""Checkpoints that a run goes on from as if it had never stopped: weights, optimizer, step. Nothing is pickled.

Data order, dropout and sampling are functions of (seed, step), so the step is all there is to remember of them.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ownlm.console.errors import OwnlmError, Refused
from ownlm.json_files import read_object
from ownlm.model.checkpoint import load_model, save_model, save_tensors, write_json
from ownlm.model.transformer import Transformer
from ownlm.training.optimizer import Optimizer


def save_checkpoint(
    run: Path, step: int, model: Transformer, optimizer: Optimizer, state: dict[str, object]
) -> Path:
    """Write `checkpoints/step-N/` under another name first: a kill or a full disk leaves the older ones whole."""
    final = run / "checkpoints" / f"step-{step}"
    temporary = final.with_name(final.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        save_model(model, temporary, token_ids(run), dtype=torch.float32)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            if (run / name).exists():
                shutil.copyfile(run / name, temporary / name)
        save_tensors(optimizer.state_tensors(), temporary / "optimizer.safetensors")
        write_json(temporary / "state.json", {"step": step, **state})
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if final.exists():
        shutil.rmtree(final)
    temporary.replace(final)
    return final


def token_ids(run: Path) -> dict[str, int]:
    """bos, eos and pad ids for config.json, as the run's generation_config.json has them."""
    content = read_object(run / "generation_config.json")
    return {key: content[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in content}


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


def load_checkpoint(folder: Path, model: Transformer, optimizer: Optimizer) -> dict[str, object]:
    """Put a checkpoint's weights and optimizer state into `model` and `optimizer`; return its state.json."""
    try:
        state: dict[str, object] = read_object(folder / "state.json")
        stored = load_model(folder, device=next(model.parameters()).device)
        tensors = load_file(folder / "optimizer.safetensors")
        missing = [name for name in ("step", "seconds") if name not in state]
        missing += [name for name in optimizer.state_tensors() if name not in tensors]
    except FileNotFoundError as error:
        raise _damaged(folder, f"Missing: {error.filename}.") from None
    except (OwnlmError, SafetensorError) as error:
        raise _damaged(folder, str(error)) from None
    if missing:
        raise _damaged(folder, f"Missing: {missing[0]}.")
    if stored.config != model.config:
        raise Refused("the checkpoint is of another model than the run.", where=folder)
    model.load_state_dict(stored.state_dict())
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
