"""The documentation is true: its commands run, its options exist, its links lead somewhere."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import ownlm
from ownlm import cli
from ownlm.console.command import option_name
from ownlm.console.settings import ALIASES
from ownlm.machine import examine
from ownlm.verbs import VERBS
from tests.conftest import TINY
from tests.docs import shell
from tests.docs.pages import (
    PAGES,
    ROOT,
    RUN_LANGUAGES,
    SHOWN_LANGUAGES,
    Block,
    blocks,
    commands,
    links,
    mentioned_options,
    name,
    ownlm_words,
    page_commands,
)

ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
# The blocks of the Chinese README are those of README.md (tested below): running them once is enough.
RUN_PAGES = [p for p in PAGES if p != CHINESE and any(b.language in RUN_LANGUAGES for b in blocks(p))]
OTHER_OPTIONS = {
    "--help", "--version", "--completion", "--quiet", "--debug",  # of every verb, or of ownlm itself
    "--check",  # of scripts/write_docs.py
    "--python",  # of uv
    "--rounds",  # of scripts in bench/
}  # fmt: skip
NOTES = "# Notes\n\nThe river runs to the sea, and the fox runs home.\n"
ROW_TEXT = "Rain falls on the hills, and the river runs again. 夜来风雨声，花落知多少。"


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with shell.one_core(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            examine, "MATMUL_SECONDS", 0.3
        )  # doctor measures for five seconds; no figure is looked at
        yield


@pytest.fixture
def desk(text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: English and Chinese texts, a note, a table."""
    shutil.copytree(text_folder, tmp_path / "my_texts")
    (tmp_path / "notes.md").write_text(NOTES, encoding="utf-8")
    rows = (
        json.dumps({"title": f"rain {i}", "text": f"{i}: {ROW_TEXT}"}, ensure_ascii=False) for i in range(60)
    )
    (tmp_path / "data.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made_folders(page: Path) -> set[str]:
    """What the commands of a page write, so that it must not be there before."""
    text = "\n".join(block.text for block in blocks(page) if block.language in RUN_LANGUAGES)
    return set(re.findall(r'(?:-o |output=")([\w-]+)', text))


@pytest.fixture(scope="module")
def wide_run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose window holds the rows of the data sets that ownlm writes."""
    path = tmp_path_factory.mktemp("wide") / "run"
    ownlm.pretrain(
        corpus, output=path, max_steps=2, **(TINY | {"context": 512, "per_device_train_batch_size": 2})
    )
    return path


@pytest.mark.parametrize("page", RUN_PAGES, ids=name)
def test_the_commands_of_a_page_run(page: Path, desk: Path, corpus: Path, run: Path, wide_run: Path) -> None:
    teaches = "ownlm finetune" in page.read_text(encoding="utf-8")
    for folder in ({"corpus": corpus, "run": wide_run if teaches else run}).items():
        if folder[0] not in made_folders(page):
            shutil.copytree(folder[1], desk / folder[0])
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page):
        if block.language == "sh":
            run_shell(page, block)
        elif block.language == "python":
            run_python(page, block, names)


def run_shell(page: Path, block: Block) -> None:
    for command in commands(block):
        result = shell.run(command)
        where = f"{name(page)}:{command.line}: {command.text}"
        assert result.code == command.exit_code, f"{where}\nexit code {result.code}\n{result.errors}"


def run_python(page: Path, block: Block, names: dict[str, Any]) -> None:
    code = compile("\n" * (block.line - 1) + shell.python_text(block.text), name(page), "exec")
    with contextlib.redirect_stdout(io.StringIO()):
        exec(code, names)


def test_an_option_that_does_not_exist_fails_the_page(desk: Path) -> None:
    """The runner itself: a wrong option, a wrong verb, a wrong make target, a wrong exit code are seen."""
    page = desk / "page.md"
    for line, message in (
        ("ownlm prepare my_texts -o c --vocabulary-size 400", "no option --vocabulary-size"),
        ("ownlm prepared my_texts", 'no verb "prepared"'),
        ("make quickstrat", "no target"),
        ("rm -rf my_texts", "is not one of"),
        ("ownlm runs  # exit code 3", "exit code 0"),
    ):
        page.write_text(f"```sh\n{line}\n```\n")
        with pytest.raises(AssertionError, match=message):
            run_shell(ROOT / "page.md", blocks(page)[0])


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_typed_option_exists(page: Path) -> None:
    """Also of those options that the test replaces, and of those that only the prose names."""
    for command in page_commands(page):
        for words in ownlm_words(command):
            known = options_of(words[0]) if words[0] in VERBS else {"--help", "--version", "--completion"}
            given = {word.split("=")[0] for word in words[1:] if word.startswith("--")}
            assert not given - known, f"{name(page)}:{command.line}: {command.text}"
    everything = OTHER_OPTIONS.union({option_name(alias) for alias in ALIASES}, *map(options_of, VERBS))
    assert not mentioned_options(page) - everything


def options_of(verb: str) -> set[str]:
    command = cli.verb_command(verb)
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


def test_only_blocks_of_known_languages() -> None:
    """A block without a language would be neither run nor meant for reading."""
    for page in PAGES:
        for block in blocks(page):
            assert block.language in RUN_LANGUAGES + SHOWN_LANGUAGES, f"{name(page)}:{block.line}"
            if block.language == "json":
                json.loads(block.text)


def test_no_substitution_is_idle() -> None:
    words = [words for page in PAGES for c in page_commands(page) for words in ownlm_words(c)]
    made = {rule for typed in words for rule in shell.substituted(typed)[1]}
    assert made == set(shell.SUBSTITUTIONS)
    code = "\n".join(b.text for page in PAGES for b in blocks(page) if b.language == "python")
    for pattern, _, _ in shell.PYTHON_SUBSTITUTIONS:
        assert re.search(pattern, code), pattern


@pytest.fixture(scope="module")
def writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_docs", ROOT / "scripts" / "write_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("verb", VERBS)
def test_the_options_of_a_page_are_those_of_the_verb(verb: str, writer: ModuleType) -> None:
    page = (ROOT / "docs" / f"{verb}.md").read_text(encoding="utf-8")
    assert writer.options_table(verb) in page, "out of date: python scripts/write_docs.py"
    assert page.count(writer.START) == 1


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        assert (page.parent / target).exists(), f"{name(page)}: {target}"


def test_every_page_is_linked_from_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / target).resolve() for target in links(index)}
    assert {ROOT / "docs" / f"{verb}.md" for verb in VERBS} <= linked
    assert {page.resolve() for page in PAGES if page.parent == index.parent} - {index} <= linked
    assert (ROOT / "docs" / "README.md").resolve() in {(ROOT / t).resolve() for t in links(ENGLISH)}


def test_both_readmes_have_the_same_commands() -> None:
    def typed(page: Path) -> list[tuple[Any, ...]]:
        return [(c.stages, c.output, c.exit_code) for c in page_commands(page)]

    def programs(page: Path) -> list[str]:
        code = "\n".join(block.text for block in blocks(page) if block.language == "python")
        return [re.sub(r"\s*# .*", "", line) for line in code.splitlines()]

    assert typed(ENGLISH) == typed(CHINESE)
    assert programs(ENGLISH) == programs(CHINESE)


def test_both_readmes_have_the_same_facts_and_mention_the_same_verbs() -> None:
    texts = [page.read_text(encoding="utf-8") for page in (ENGLISH, CHINESE)]
    for text in texts:
        assert text.count("<!-- facts -->") == text.count("<!-- end of facts -->") == 1
        for verb in VERBS:
            assert f"`{verb}`" in text or f"[{verb}]" in text, verb
    facts = [re.findall(r"\d[\d.,]*", re.split("<!-- (?:end of )?facts -->", text)[1]) for text in texts]
    assert facts[0] == facts[1]


def keys(value: Any, *, below: tuple[str, ...] = ()) -> Iterator[str]:
    """All keys of a JSON document but those below the named ones."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            if key not in below:
                yield from keys(inner, below=below)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner, below=below)


def documented(page: str) -> set[str]:
    """The words in `code` on a page."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return {word for code in re.findall(r"`([^`\n]+)`", text) for word in re.findall(r"[\w.<>|-]+", code)}


def test_every_field_of_a_corpus_folder_is_documented(corpus: Path) -> None:
    words = documented("corpus-folder.md")
    manifest = json.loads((corpus / "corpus.json").read_text(encoding="utf-8"))
    sources = json.loads((corpus / "sources.jsonl").read_text(encoding="utf-8").splitlines()[0])
    # The settings are those of the verb (docs/prepare.md); reasons are counted by name.
    assert {*keys(manifest, below=("settings", "dropped", "changed", "fallbacks")), *sources} <= words
    for file in corpus.iterdir():
        assert re.sub(r"\d{5}", "N", file.name) in words | {w.replace("00000", "N") for w in words}, file.name


def test_every_field_of_a_run_folder_is_documented(run: Path) -> None:
    words = documented("run-folder.md")
    content = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert set(keys(content, below=("settings", "overlap"))) <= words
    for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        assert {entry["kind"], *entry} <= words
    for file in [*run.iterdir(), *next((run / "checkpoints").iterdir()).iterdir()]:
        assert file.name in words, file.name


def test_every_random_stream_is_documented() -> None:
    """The purposes that seeds are derived for, as the source has them."""
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    purposes = set(re.findall(r'\b(?:derive|unit|stream_key)\(.*?seed, "([^"]+)"', sources))
    assert len(purposes) >= 10
    page = (ROOT / "docs" / "reproducibility.md").read_text(encoding="utf-8")
    rows = page.split("| purpose |")[1].split("\n\n")[0].splitlines()
    assert purposes == {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}
