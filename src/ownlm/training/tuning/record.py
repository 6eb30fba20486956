"""What a fine-tuned run says about itself: run.json, the files beside the weights, the model card."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ownlm import __version__
from ownlm.console.command import option_name
from ownlm.corpus.tokenizer import Tokenizer
from ownlm.locate import FORMAT
from ownlm.model.checkpoint import write_json
from ownlm.tasks.templates import FILE, ChatTemplate
from ownlm.training.loop import Trainer
from ownlm.training.plan import TrainPlan
from ownlm.training.run_folder import command_line, environment

OF_THE_COMMAND = ("output", "overwrite", "resume", "dry_run", "json", "config")
CHANGEABLE = frozenset({"on_divergence", "logging_steps"})  # with --resume


def cost(trainer: Trainer) -> dict[str, Any]:
    """What the steps so far took."""
    plan, seconds = trainer.plan, trainer.seconds_before
    tokens = trainer.step * plan.tokens_per_step
    flops = tokens * plan.flops_per_token
    return {
        "seconds": seconds,
        "tokens": tokens,
        "flops": flops,
        "mfu": flops / max(seconds, 1e-9) / plan.peak_flops,
        "skipped_steps": trainer.watchdog.skipped if trainer.watchdog else 0,
    }


def describe(
    settings: Mapping[str, Any],
    given: Collection[str],
    plan: TrainPlan,
    *,
    task: str,
    way: str,
    model: Mapping[str, Any],
    data: Mapping[str, Any],
    template: ChatTemplate | None,
    tokenizer: Tokenizer,
    looked: Mapping[str, Any],
    taught_before: Sequence[str],
    labels: Sequence[str] | None,
    no_answer: bool | None,
) -> dict[str, Any]:
    """run.json as it is before step 1; the fields are those of docs/run-folder.md."""
    return {
        "format": FORMAT,
        "ownlm": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(1).replace("ownlm.pretrain", "ownlm.finetune"),
        "repeat": repeat_command(settings, given, plan),
        "settings": {name: _plain(value) for name, value in settings.items()},
        "plan": plan.to_json(),
        "preflight": dict(looked),
        "task": task,
        "way": way,
        "model": dict(model),
        "data": dict(data),
        "chat_template": None
        if template is None
        else {"from": str(template.where), "sha256": template.sha256},
        "labels": list(labels) if labels else None,
        "no_answer": no_answer,
        "tokenizer_sha256": tokenizer.sha256,
        "environment": environment(plan.device, plan.threads),
        "seed": plan.seed,
        "taught": list(dict.fromkeys([*taught_before, task])),
        "scores": {},
        "cost": {"seconds": 0.0, "tokens": 0, "flops": 0.0},
        "result": {},
        "finished": False,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def repeat_command(settings: Mapping[str, Any], given: Collection[str], plan: TrainPlan) -> str:
    """The command that trains exactly this plan on this machine."""
    words = ["ownlm", "finetune", str(settings["model"]), *map(str, settings["data"])]
    words += ["-o", f"{settings['output']}-again", "--max-steps", str(plan.max_steps)]
    words += ["--per-device-train-batch-size", str(plan.per_device_train_batch_size)]
    words += ["--gradient-accumulation-steps", str(plan.gradient_accumulation_steps)]
    said = {"model", "data", "minutes", "max_steps", "num_train_epochs", "per_device_train_batch_size",
            "gradient_accumulation_steps", *OF_THE_COMMAND}  # fmt: skip
    for name in settings:
        if name in said or name not in given:
            continue
        for one in settings[name] if isinstance(settings[name], list) else [settings[name]]:
            words += [option_name(name)] if one is True else [option_name(name), str(one)]
    return shlex.join(words)


def write_files(
    run: Path,
    tokenizer: Tokenizer,
    template: ChatTemplate | None,
    content: dict[str, Any],
    ends: Sequence[int],
) -> None:
    """run.json, tokenizer, chat template and generation_config.json: all but the weights.

    Args:
        ends: ids of tokens that end an answer.
    """
    write_json(run / "run.json", content)
    tokenizer.save(run)
    if template is not None:
        (run / FILE).write_text(template.source, encoding="utf-8")
    ids: dict[str, Any] = {
        "bos_token_id": tokenizer.eos_id,
        "eos_token_id": list(ends) if len(ends) > 1 else tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
    }
    write_json(run / "generation_config.json", {**ids, "do_sample": True, "temperature": 0.8})


def write_card(run: Path, content: Mapping[str, Any]) -> None:
    """README.md in the hub's form: what was taught, on what, with what figures before and after."""
    model, data, plan, task = content["model"], content["data"], content["plan"], content["task"]
    adapter = content["way"] == "lora"
    library = "peft" if adapter else "transformers"
    lines = ["---", f"library_name: {library}", f"tags: [ownlm, {task}]"]
    lines += (
        [f"base_model: {model['base']}"] if "/" in model["base"] and not Path(model["base"]).exists() else []
    )
    lines += ["---", f"# {run.resolve().name}", ""]
    kind = "An adapter (LoRA) for" if adapter else "A model fine-tuned from"
    lines += [
        f"{kind} `{model['base']}`, taught {task} with ownlm {content['ownlm']}: {model['parameters']:,} parameters, "
        f"{model['trained_parameters']:,} of them trained.",
        "",
        "## Training",
        f"- rows: {data['train_rows']:,} trained, {data['held_out_rows']:,} held out; hash `{data['hash'][:16]}`",
        f"- steps: {plan['max_steps']:,}, {content['preflight']['epochs']:.1f} times through the rows, seed {plan['seed']}, "
        f"{plan['dtype']} products",
        f"- time: {content['cost']['seconds']:.0f} s on {content['environment']['gpu'] or content['environment']['cpu']}",
        f"- repeat: `{content['repeat']}`",
        "",
    ]
    lines += _measured(content)
    if content["preflight"]["overlap"]["both_sides"]:
        lines += ["Held-out rows were trained too: the figures are too good.", ""]
    lines += [
        "## Limits",
        "What it was not taught it does no better than its base. Check what it writes before you use it.",
        "",
    ]
    (run / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _measured(content: Mapping[str, Any]) -> list[str]:
    lines = []
    for task, scores in content.get("scores", {}).items():
        before = scores.get("before") or {}
        lines += [f"## Measured: {task}", "", "| figure | before | after |", "|---|---|---|"]
        lines += [
            f"| {name} | {_interval(before.get(name))} | {_interval(after)} |"
            for name, after in scores["after"].items()
        ]
        lines += ["", f"On {scores['data']}; 95 % intervals from resampled rows.", ""]
    return lines


def _interval(metric: Mapping[str, Any] | None) -> str:
    if not metric:
        return "–"
    return f"{metric['value']:.4g} ({metric['low']:.4g} to {metric['high']:.4g}, n = {metric['n']:,})"
