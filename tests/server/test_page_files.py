"""What must hold of the files of the page without a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "src" / "ownlm" / "server" / "page"


def test_every_word_is_in_both_languages_and_every_key_has_words():
    dictionary = (PAGE / "words.js").read_text(encoding="utf-8")
    rows = dict(re.findall(r'^  (\w+): (\[".*"\]),$', dictionary, re.MULTILINE))
    assert len(rows) == dictionary.count("\n  ") - dictionary.count("\n  //")
    for key, row in rows.items():
        english, chinese = json.loads(row)
        assert english, key
        assert chinese, key
        assert set(re.findall(r"{\w+}", english)) == set(re.findall(r"{\w+}", chinese)), key
    assert all(
        re.search(r"[一-鿿…]", json.loads(row)[1])
        or key in ("asCurl", "asPython")
        or key.startswith("setting_")
        for key, row in rows.items()
    )


def test_every_word_that_is_said_is_in_the_dictionary_and_every_one_of_it_is_said():
    known = set(re.findall(r"^  (\w+): \[", (PAGE / "words.js").read_text(encoding="utf-8"), re.MULTILINE))
    code = "".join(path.read_text(encoding="utf-8") for path in PAGE.glob("*.js") if path.name != "words.js")
    said = set()
    for form in (
        r'\b(?:t|tLabel|tTitle|tPlaceholder|key|label|about): \[?"(\w+)"',
        r'\b(?:say\([\w.]+, |button\(|signButton\("[^"]+", |Complaint\(|\bt\(|announce\()"(\w+)"',
    ):
        said |= set(re.findall(form, code)) - {
            "t",
            "tLabel",
            "tTitle",
            "tPlaceholder",
            "title",
            "placeholder",
        }
    assert said - known == set()
    prefixes = tuple(re.findall(r"`(\w+_)\$\{", code))
    assert {key for key in known if f'"{key}"' not in code and not key.startswith(prefixes)} == set()


def test_the_files_of_the_page_are_small_and_write_no_markup():
    files = [path for path in PAGE.iterdir() if path.suffix in (".js", ".css", ".html")]
    assert len(files) > 20
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 300, path.name
        for word in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "//cdn",
        ):
            assert word not in text, (path.name, word)
