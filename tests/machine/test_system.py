"""Extras, compiler, encodings."""

import sys

import pytest

from ownlm.machine import system

REQUIREMENTS = [
    "torch>=2.9",
    'pyarrow>=17; extra == "data"',
    "no-such-package-anywhere>=1; extra == 'data'",
    'markitdown[docx,pdf]>=0.1.1; extra == "documents"',
    'pytest>=8.3 ; python_version >= "3.11" and extra == "test"',
]


def test_extras_come_from_the_package_metadata(monkeypatch):
    monkeypatch.setattr(
        system, "_version", lambda name: None if name == "no-such-package-anywhere" else "1.0"
    )
    monkeypatch.setattr(system, "_source_folder", lambda: "")
    found = {extra.name: extra for extra in system.extras(REQUIREMENTS)}
    assert list(found) == ["data", "documents", "test"]
    assert found["data"].packages == ["pyarrow", "no-such-package-anywhere"]
    assert found["data"].missing == ["no-such-package-anywhere"]
    assert found["data"].command == "pip install 'ownlm[data]'"
    assert found["documents"].missing == []
    assert found["test"].packages == ["pytest"]


def test_an_editable_installation_is_installed_from_its_folder(monkeypatch):
    monkeypatch.setattr(system, "_source_folder", lambda: "/src/own lm")
    assert system.install_command("data") == "pip install -e '/src/own lm[data]'"


def test_the_project_declares_the_extras_that_it_names():
    declared = {extra.name for extra in system.extras()}
    assert {"data", "documents"} <= declared


def test_a_compiler_is_found_by_variable_and_name(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert system.compiler() == ""
    for name in ("clang++", "mycc"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    assert system.compiler().endswith("clang++")
    monkeypatch.setenv("CXX", "mycc")
    assert system.compiler().endswith("mycc")


@pytest.mark.parametrize(("encoding", "count"), [("utf-8", 0), ("UTF_8", 0), ("latin-1", 1), ("cp936", 1)])
def test_a_terminal_that_loses_characters_is_named(monkeypatch, encoding, count):
    class Stream:
        pass

    stream = Stream()
    stream.encoding = encoding  # type: ignore[attr-defined]
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(system.locale, "getpreferredencoding", lambda _: "UTF-8")
    problems = system.encoding_problems()
    assert len(problems) == count
    assert all(encoding in problem and "PYTHONIOENCODING" in problem for problem in problems)


def test_versions_name_python_and_torch():
    found = system.versions()
    assert found["python"].startswith("3.")
    assert found["torch"] != ""
