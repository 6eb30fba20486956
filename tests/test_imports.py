"""Imports point one way, and what is quick stays quick: the rooms of CONTRIBUTING.md, checked over the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ownlm

SOURCE = Path(ownlm.__file__).parent

# Each room and all that it may import. Files beside the rooms are grouped: `hub` fetches models by name, `use` is
# a model that is ready for use. A room stands after all that it may import, so there are no circles.
MAY_IMPORT: dict[str, set[str]] = {
    "version": set(),
    "seeds": set(),
    "console": set(),
    "report": {"console"},
    "locate": {"console"},
    "json_files": {"console"},
    "hub": {"console", "version"},
    "model": {"console", "json_files", "seeds"},
    "machine": {"console", "model"},
    "kernels": set(),
    "engine": {"console", "model", "machine", "kernels"},
    "corpus": {"console", "seeds", "hub", "version"},
    "tasks": {"console", "json_files", "locate", "hub", "corpus"},
    "evaluation": {"console", "seeds", "json_files", "corpus", "model", "engine", "tasks"},
    "export": {"console", "json_files", "hub", "corpus", "model", "engine", "version"},
    "use": {"console", "json_files", "locate", "hub", "corpus", "model", "machine", "engine", "evaluation", "tasks"},
    "training": {
        "kernels", "console", "seeds", "json_files", "locate", "version", "report", "corpus", "model", "machine", "engine",
        "evaluation", "use", "tasks",
    },
    "search": {"console", "corpus"},
    "answering": {"console", "search", "tasks", "use"},
    "server": {
        "answering", "console", "corpus", "engine", "locate", "report", "search", "tasks", "use", "version",
    },
}  # fmt: skip
MAY_IMPORT["verbs"] = set(MAY_IMPORT)
MAY_IMPORT["front"] = {"verbs", "use", "console", "version"}

GROUPS = {
    "__main__": "front", "cli": "front", "__init__": "front", "__version__": "version",
    "adapters": "use", "adapter_bases": "use",
    "answer_form": "use", "continuation": "use", "filling": "use", "loaded": "use", "masked": "use", "foreign": "use",
    "foreign_open": "use", "foreign_headed": "use", "predicting": "use", "task_methods": "use", "seq2seq": "use", "seq2seq_settings": "use", "seq2seq_sources": "use",
    "pipeline": "use", "pipelines": "use",
    "chatting": "use", "conversation": "use",
    "headed": "use", "headed_inputs": "use", "headed_logits": "use", "headed_refusal": "use", "headed_spans": "use", "headed_tags": "use",
    "headed_training": "use",
    "hub_errors": "hub", "hub_fetch": "hub", "hub_listing": "hub",
}  # fmt: skip

EXCEPTIONS = {
    # Quickstart's facts open the run that was just trained, like a verb; nothing below the verbs imports them.
    ("evaluation/facts.py", "use"),
    ("evaluation/facts.py", "training"),
}

# Libraries that would bring text into the model and the engine, or weight into every command's first message.
NEVER = {
    "model": {"tokenizers", "tiktoken"},
    "engine": {"tokenizers", "tiktoken", "transformers"},
    "console": {"torch", "tokenizers", "transformers", "huggingface_hub"},
}


def room_of(parts: tuple[str, ...]) -> str:
    """The room of a module below `ownlm`, by its dotted parts."""
    return GROUPS.get(parts[0], parts[0])


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import of a file, those inside functions and for types only too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            names = [alias.name for alias in node.names]
            yield from ((node.lineno, f"{node.module}.{name}") for name in names)


def edges() -> Iterator[tuple[str, int, str, str]]:
    """(file, line, its room, imported room) of every import of one room by another."""
    for path in sorted(SOURCE.rglob("*.py")):
        file = path.relative_to(SOURCE)
        room = room_of(file.with_suffix("").parts)
        for line, name in imported(ast.parse(path.read_text(encoding="utf-8"))):
            first, *rest = name.split(".")
            if first == "ownlm" and rest and room_of(tuple(rest)) != room:
                yield file.as_posix(), line, room, room_of(tuple(rest))


def test_every_room_imports_only_what_it_may():
    wrong = [
        f"{file}:{line}: {room} imports {other}"
        for file, line, room, other in edges()
        if other not in MAY_IMPORT[room] and (file, other) not in EXCEPTIONS
    ]
    assert wrong == []


def test_the_table_has_no_circle_and_names_what_is_there():
    rooms = list(MAY_IMPORT)
    for number, room in enumerate(rooms):
        assert MAY_IMPORT[room] <= set(rooms[:number]), room
    found = list(edges())
    assert {(file, other) for file, _, _, other in found} >= EXCEPTIONS
    used = {(room, other) for _, _, room, other in found}
    unused = {(room, other) for room in rooms for other in MAY_IMPORT[room] if room != "verbs"} - used
    assert unused == set()


@pytest.mark.parametrize("room", NEVER)
def test_a_room_knows_nothing_of(room):
    for path in sorted((SOURCE / room).rglob("*.py")):
        for line, name in imported(ast.parse(path.read_text(encoding="utf-8"))):
            assert name.split(".")[0] not in NEVER[room], f"{path.name}:{line}"


@pytest.mark.parametrize(
    "code",
    [
        "import ownlm; ownlm.load('no/such/run')",
        "import ownlm; ownlm.evaluate('no/such/run')",
        "import ownlm; ownlm.generate('no/such/run', 'The')",
        "import ownlm.cli; sys.exit(ownlm.cli.main(['score', 'no/such/run', 'The']))",
        "import ownlm.cli; sys.exit(ownlm.cli.main(['chat', 'no/such/run']))",
    ],
)
def test_a_wrong_model_name_is_said_before_torch_is_loaded(code, tmp_path):
    whole = f"import sys, atexit\natexit.register(lambda: print('torch' in sys.modules))\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", whole], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert "no such run folder" in done.stderr
    assert done.returncode != 0
    assert done.stdout == "False\n"
