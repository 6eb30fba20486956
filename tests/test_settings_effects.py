"""Every setting of every verb changes something that a person can see; a setting that no test knows is an error.

The settings, with another value and what must differ by it, are in `settings_table`.
"""

from __future__ import annotations

import ast
import inspect
import io
import sys
from pathlib import Path
from typing import Any

import pytest

from ownlm.cli import main
from ownlm.verbs import VERBS, load_verb
from tests.conftest import TINY
from tests.settings_table import TABLE, Differs, Typed

TESTS = Path(__file__).parent
COVERED = {"export": "tests/export", "pull": "tests/hub"}  # verbs whose settings have their tests there


def settings_of(verb: str) -> set[str]:
    return set(inspect.signature(load_verb(verb)).parameters)


@pytest.mark.parametrize("verb", VERBS)
def test_every_setting_of_every_verb_is_known(verb):
    if verb in COVERED:
        folder = TESTS.parent / COVERED[verb]
        assert any(f"{verb}" in file.read_text(encoding="utf-8") for file in folder.glob("test_*.py")), folder
        return
    assert verb in TABLE, (
        f"a new verb: say here what each of its settings changes: {sorted(settings_of(verb))}"
    )
    assert settings_of(verb) == set(TABLE[verb][1]), (
        "new or gone settings: say here what each of them changes"
    )


NAMED = sorted({test for _, effects in TABLE.values() for test in effects.values() if isinstance(test, str)})


@pytest.mark.parametrize("test", NAMED)
def test_the_tests_that_are_named_exist(test):
    """The function is in the file, and what stands in brackets is a name in it or in the table that feeds it."""
    path, _, name = test.partition("::")
    name, _, detail = name.partition("[")
    source = (TESTS.parent / path).read_text(encoding="utf-8")
    functions = {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    assert name in functions
    assert not detail or f'"{detail.rstrip("]")}":' in source


CASES = [
    pytest.param(verb, name, id=f"{verb}-{name}")
    for verb, (_, effects) in TABLE.items()
    for name, effect in effects.items()
    if isinstance(effect, Differs)
]


@pytest.fixture(scope="session")
def places(
    text_folder: Path, corpus: Path, run: Path, talker: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Paths that the commands name: a corpus and a run of each kind, and a text that needs several windows."""
    import ownlm

    folder = tmp_path_factory.mktemp("places")
    (folder / "text.txt").write_text(
        "".join(f"{i}: The fox and the river.\n" for i in range(120)), encoding="utf-8"
    )
    # Another text than the small corpus, with sentences that do not return in its validation part.
    ownlm.prepare([str(text_folder / "river.txt")], output=folder / "other corpus", vocab_size=300)
    other = ownlm.pretrain(corpus, output=folder / "other run", max_steps=0, **TINY)
    return {
        "corpus": str(corpus), "run": str(run), "other_corpus": str(folder / "other corpus"),
        "other_run": str(other.path), "talker": str(talker), "file": str(folder / "text.txt"),
    }  # fmt: skip


@pytest.fixture(scope="session")
def plain_results() -> dict[str, Typed]:
    """The plain command of each verb, typed once."""
    return {}


def changed(plain: list[str], words: list[str]) -> list[str]:
    """The plain command with other words: options win because they come last, arguments stand in for arguments."""
    if words == ["--no-json"]:
        return [word for word in plain if word != "--json"]
    if words[0].startswith("-"):
        return [*plain, *words]
    options = [i for i, word in enumerate(plain) if word.startswith("-")]
    return [*words, *plain[options[0] if options else len(plain) :]]


TINY_WORDS = [w for value in TINY["set"] for w in ("--set", value)] + [
    "--size", "1M", "--context", "32", "--per-device-train-batch-size", "8", "--dtype", "float32", "--threads", "1",
]  # fmt: skip


def type_it(verb: str, words: list[str], places: dict[str, str], folder: Path, capsys: Any) -> Typed:
    """Type a command of the table."""
    typed: list[str] = []
    for word in words:
        typed += (
            TINY_WORDS if word == "{tiny}" else [word.format(**places, work=folder) if "{" in word else word]
        )
    capsys.readouterr()
    code = main([verb, *typed])
    return Typed(code, *capsys.readouterr(), folder)


@pytest.mark.parametrize(("verb", "name"), CASES)
def test_a_setting_changes_what_it_says(
    verb, name, places, plain_results, tmp_path, tmp_path_factory, capsys, monkeypatch
):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    plain, effects = TABLE[verb]
    if verb not in plain_results:
        plain_results[verb] = type_it(verb, plain, places, tmp_path_factory.mktemp("plain"), capsys)
    effect = effects[name]
    other = type_it(verb, changed(plain, effect.words), places, tmp_path, capsys)
    assert effect.looked_at(other) != effect.looked_at(plain_results[verb])


@pytest.mark.parametrize("verb", sorted({case.values[0] for case in CASES}))
def test_the_same_command_changes_nothing(verb, places, plain_results, tmp_path, capsys, monkeypatch):
    """What is looked at differs by the setting alone: typed again as it was, the command does the same."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    plain, effects = TABLE[verb]
    first = type_it(verb, plain, places, tmp_path / "first", capsys)
    second = type_it(verb, plain, places, tmp_path / "second", capsys)
    for name, effect in effects.items():
        if isinstance(effect, Differs) and name != "json":  # JSON holds times, which differ
            assert effect.looked_at(first) == effect.looked_at(second), name
