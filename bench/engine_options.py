"""Command lines of the programs that engine_speed and engine_quality start; imports nothing of either side."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Task = Callable[[argparse.Namespace], dict[str, Any]]


def parser_of(description: str | None, tasks: Mapping[str, Task]) -> argparse.ArgumentParser:
    """Task, model, and what the tasks are told."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=list(tasks))
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--texts", type=Path, help="JSON: a list of lists of ids")
    parser.add_argument("--output", type=Path, help=".npy")
    return parser


def answer(tasks: Mapping[str, Task], options: argparse.Namespace) -> None:
    """Do what was asked and print JSON."""
    print(json.dumps(tasks[options.task](options)))
