"""The click command made from a function."""

from pathlib import Path
from typing import Any, Literal

import click
import pytest
from click.testing import CliRunner

from ownlm.console.command import build, docstring_parts


def sample(
    sources: list[str],
    *,
    output: Path = Path("out"),
    learning_rate: float = 0.5,
    max_steps: int | None = None,
    kind: Literal["a", "b"] = "a",
    stop: list[str] = [],  # noqa: B006
    resume: bool = False,
    dedup: bool = True,
    from_: str | None = None,
    near: list[str] = ["auto"],  # noqa: B006
    needed: str,
    config: Path | None = None,
) -> None:
    """First line.

    More about it.

    Args:
        sources: files and
            folders.
        stop: where to end.
        kind: a (first) or b.
        from_: hash:0.05 or a name.
        near: drop, all of them.
        needed: must be given.

    Returns:
        nothing that belongs into help.
    """


def call(*args: str) -> dict[str, Any]:
    given: list[dict[str, Any]] = []
    result = CliRunner().invoke(build(sample, given.append, "sample"), list(args), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return given[0]


def test_only_what_was_given_is_passed_on():
    assert call() == {}
    assert call("a", "b", "--learning-rate", "0.5") == {"sources": ["a", "b"], "learning_rate": 0.5}
    assert call("--stop", "x", "--stop", "y", "--kind", "b") == {"stop": ["x", "y"], "kind": "b"}


def test_flags_say_yes_and_no_only_when_typed():
    assert call("--resume", "--no-dedup") == {"resume": True, "dedup": False}
    assert call("--dedup") == {"dedup": True}


def test_short_names_and_trailing_underscores():
    assert call("-o", "x", "-c", "y", "--from", "base") == {"output": "x", "config": "y", "from_": "base"}


def test_names_of_other_tools_and_underscores(capsys):
    assert call("--max_steps=3", "--lr", "0.1", "--output_dir", "o") == {
        "max_steps": 3,
        "learning_rate": 0.1,
        "output": "o",
    }


def test_after_two_dashes_everything_is_text():
    assert call("--", "--lr", "-x") == {"sources": ["--lr", "-x"]}


def test_help_shows_arguments_options_defaults_and_no_python():
    text = CliRunner().invoke(build(sample, print, "sample"), ["--help"]).output
    words = " ".join(text.split())
    assert "Usage: sample [OPTIONS] SRC…" in text
    assert "SRC… Files and folders." in words
    assert "More about it." in text
    assert "[default: out]" in words
    assert "[default: 0.5]" in words
    assert "--needed TEXT Must be given. [required]" in words
    assert "Where to end. [may be repeated]" in words
    assert "--dedup / --no-dedup [default: yes]" in words
    assert "a (first) or b. [default: a]" in words
    assert "hash:0.05 or a name." in words
    assert "Drop, all of them. [default: auto; may be repeated]" in words
    assert "nothing that belongs" not in text
    assert "None" not in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("args", [["--max-steps", "many"], ["--kind", "c"], ["--nothing"]])
def test_wrong_options_are_click_errors(args):
    with pytest.raises(click.ClickException):
        build(sample, print, "sample").main(args, standalone_mode=False)


def test_docstring_without_args_section():
    def plain() -> None:
        """Only this."""

    assert docstring_parts(plain) == ("Only this.", {})


def test_paths_and_choices_complete():
    command = build(sample, print, "sample")
    kinds = {p.name: p.type for p in command.params}
    assert isinstance(kinds["output"], click.Path)
    assert isinstance(kinds["sources"], click.Path)
    assert isinstance(kinds["from_"], click.Path)
    assert isinstance(kinds["kind"], click.Choice)
