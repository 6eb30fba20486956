"""Settings from a signature: precedence, names, types, files."""

import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownlm.console.errors import UsageError
from ownlm.console.settings import parse_assignments, verb

if TYPE_CHECKING:
    from nowhere import OnlyForTypeCheckers


@verb
def trained(
    corpus: Path,
    *,
    learning_rate: float = 0.001,
    max_steps: int | None = None,
    mode: Literal["fast", "exact"] = "fast",
    stop: list[str] = [],  # noqa: B006
    from_: str | None = None,
    vocab_size: int | str = "auto",
    overwrite: bool = False,
    config: Path | None = None,
) -> "OnlyForTypeCheckers":
    """Return what it got."""
    return dict(locals())


def write(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    file = tmp_path / "settings.yaml"
    file.write_text(text, encoding=encoding)
    return file


def test_defaults_and_conversions():
    got = trained("corpus", max_steps="12", stop="。")
    assert got["corpus"] == Path("corpus")
    assert got["max_steps"] == 12
    assert got["stop"] == ["。"]
    assert got["learning_rate"] == 0.001
    assert got["vocab_size"] == "auto"


class Folder(os.PathLike[str]):
    """What a stage hands to the next one: more than a path, and usable as one."""

    def __fspath__(self) -> str:
        return "some/folder"


def test_what_has_a_path_stands_for_it():
    got = trained(Folder(), stop=Path("a.txt"), from_=Folder())
    assert (got["corpus"], got["stop"], got["from_"]) == (Path("some/folder"), ["a.txt"], "some/folder")
    assert trained("c", stop=[Folder(), "b"])["stop"] == ["some/folder", "b"]
    loaded = Folder()
    assert opened(loaded) is loaded


@verb
def opened(model: Any) -> Any:
    """Return what it got, as it is."""
    return model


def test_given_wins_over_file_and_file_over_default_also_when_the_default_is_given(tmp_path):
    file = write(tmp_path, "learning_rate: 5e-3\nmax_steps: 7\n")
    assert trained("c", config=file)["learning_rate"] == 0.005
    assert trained("c", config=file, learning_rate=0.001)["learning_rate"] == 0.001
    assert trained("c", config=file, learning_rate=0.001)["max_steps"] == 7
    assert trained("c")["max_steps"] is None


def test_a_file_may_give_what_is_required_and_a_list_or_one_value(tmp_path):
    got = trained(config=write(tmp_path, "corpus: 語料\nstop: [a, b]\nfrom: base\n"))
    assert (got["corpus"], got["stop"], got["from_"]) == (Path("語料"), ["a", "b"], "base")
    assert trained(config=write(tmp_path, "corpus: c\nstop: a\n"))["stop"] == ["a"]


def test_a_file_with_a_byte_order_mark_and_an_empty_file_are_read(tmp_path):
    assert trained("c", config=write(tmp_path, "max_steps: 3\n", "utf-8-sig"))["max_steps"] == 3
    assert trained("c", config=write(tmp_path, "# nothing yet\n"))["max_steps"] is None


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("\nlearing_rate: 1", 2, 'unknown setting "learing_rate". Did you mean "learning_rate"'),
        ("max_steps: 1\n\nmax_steps: 2", 3, "set twice"),
        ("max_steps: 1\nmax_iters: 2", 2, "set twice"),
        ("max_steps: 1\nmode: slow", 2, "'fast' or 'exact', not 'slow'"),
        ("max_steps: yes", 1, "not a value of max_steps"),
        ("learning_rate: .nan", 1, "finite"),
        ("config: other.yaml", 1, "cannot name another"),
        ("a: [1\nb: 2", 2, "not YAML"),
        ("- 1\n- 2", 1, "name: value"),
        ("max_steps: !!python/object/apply:os.getcwd []", 1, "not a plain value"),
    ],
)
def test_errors_in_a_file_name_its_line(tmp_path, text, line, message):
    file = write(tmp_path, text)
    with pytest.raises(UsageError) as error:
        trained("c", config=file)
    assert str(error.value.where) == f"{file}:{line}"
    assert message in str(error.value)


def test_files_that_cannot_be_read_say_so(tmp_path):
    for path, reason in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "directory")):
        with pytest.raises(UsageError, match="cannot be read") as error:
            trained("c", config=path)
        assert reason in str(error.value)
    (tmp_path / "latin.yaml").write_bytes(b"mode: \xff\xfe")
    with pytest.raises(UsageError, match="not a YAML file"):
        trained("c", config=tmp_path / "latin.yaml")


def test_aliases_are_taken_with_a_notice_and_never_twice(capsys):
    assert trained("c", lr=0.5)["learning_rate"] == 0.5
    assert "lr is called learning_rate here" in capsys.readouterr().err
    with pytest.raises(UsageError, match="given twice"):
        trained("c", lr=0.5, learning_rate=0.5)


def test_wrong_arguments_in_python_name_the_parameter():
    with pytest.raises(UsageError, match="trained needs corpus"):
        trained()
    with pytest.raises(UsageError, match=r"^max_steps: .*integer.* not 1\.5"):
        trained("c", max_steps=1.5)
    with pytest.raises(UsageError, match=r'unknown setting "max_stps"\. Did you mean "max_steps"'):
        trained("c", max_stps=1)
    with pytest.raises(UsageError, match="too many positional"):
        trained("c", "d")
    with pytest.raises(UsageError, match="True is not a value of max_steps"):
        trained("c", max_steps=True)


def test_the_decorated_function_keeps_signature_and_docstring():
    assert next(iter(inspect.signature(trained).parameters)) == "corpus"
    assert trained.__doc__ == "Return what it got."


def test_defaults_are_not_shared_between_calls():
    trained("c")["stop"].append("x")
    assert trained("c")["stop"] == []


def test_assignments_are_read_as_yaml_scalars():
    given_ = [
        "num_hidden_layers=2",
        "rope-theta=1e4",
        "tie=false",
        "name=a=b",
        "empty=",
        "act='1'",
        "eps=1e-6",
    ]
    assert parse_assignments(given_) == {
        "num_hidden_layers": 2,
        "rope_theta": 10000.0,
        "tie": False,
        "name": "a=b",
        "empty": None,
        "act": "1",
        "eps": 1e-6,
    }


@pytest.mark.parametrize("wrong", [["x"], ["=3"], ["a=1", "a=2"], ["a=[1"]])
def test_wrong_assignments_are_refused(wrong):
    with pytest.raises(UsageError):
        parse_assignments(wrong)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.integers() | st.floats(0.001, 1e9)))
def test_numbers_survive_an_assignment(values: dict[str, Any]):
    assert parse_assignments(f"{name}={value!r}" for name, value in values.items()) == values
