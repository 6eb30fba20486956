"""The data sets that are made here: the same bytes, no group on both sides, and right."""

from __future__ import annotations

import ast
import json
import re
from datetime import date

import pytest

from ownlm.console.errors import UsageError
from ownlm.tasks.check import report
from ownlm.tasks.dataset import read_dataset
from ownlm.tasks.examples import code, dates, write
from ownlm.tasks.examples.functions import functions


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Each data set, written once (Python's source is read once)."""
    root = tmp_path_factory.mktemp("examples")
    for task in write.EXAMPLES:
        write.write_example(task, root / task)
    return root


def rows(folder, name):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("task", write.EXAMPLES)
def test_a_data_set_has_thousands_of_good_rows_and_a_readme(task, folders):
    content = report(read_dataset([folders / task]))
    assert content["task"] == write.EXAMPLES[task].task.replace("sentiment", "classification")
    assert content["left_out"] == {}
    assert content["usable"] == content["rows"] > 1000
    assert content["copies"]["in_both_splits"] == 0
    train, validation = (len(rows(folders / task, name)) for name in ("train", "validation"))
    assert 0.05 < validation / (train + validation) < 0.25
    readme = (folders / task / "README.md").read_text(encoding="utf-8")
    assert f"| train.jsonl | {train:,} |" in readme
    assert (
        json.loads(re.search(r"````json\n(.*?)````", readme, re.DOTALL)[1])
        == rows(folders / task, "validation")[0]
    )


def test_the_same_bytes_again(folders, tmp_path):
    for task in ("translation", "qa"):
        write.write_example(task, tmp_path / task)
        for file in sorted((folders / task).iterdir()):
            assert (tmp_path / task / file.name).read_bytes() == file.read_bytes()


def test_a_folder_with_something_in_it_is_not_written_to(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        write.write_example("translation", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_whole_packages_are_held_out():
    for make in (code.summaries, code.questions, code.chats, code.completions, code.tagged, code.labelled):
        made = list(make())
        held_out = {id(row) for row in write.split(made)[1]}
        groups = {side: {g.group for g in made if (id(g.row) in held_out) == side} for side in (True, False)}
        assert groups[True]
        assert not groups[True] & groups[False]


def test_answers_stand_where_they_are_said_to_and_are_the_defaults(folders):
    for row in rows(folders / "qa", "validation"):
        (text,), (start,) = row["answers"]["text"], row["answers"]["answer_start"]
        assert row["context"][start:].startswith(text)
        argument, name = re.fullmatch(r"What is the default of (\w+) in (\w+)\?", row["question"]).groups()
        tree = ast.parse(row["context"]).body[0]
        assert tree.name == name
        found = {
            a.arg: d
            for a, d in zip(reversed(tree.args.posonlyargs + tree.args.args), reversed(tree.args.defaults))
        }
        found |= dict(zip((a.arg for a in tree.args.kwonlyargs), tree.args.kw_defaults))
        assert ast.unparse(found[argument]) == ast.unparse(ast.parse(text, mode="eval"))


def test_tags_are_what_the_syntax_says(folders):
    for row in rows(folders / "ner", "validation")[:200]:
        names = [token for token, tag in zip(row["tokens"], row["tags"]) if tag == "B-FUNCTION"]
        assert len(names) == 1
        assert row["tokens"][row["tokens"].index("def") + 1] == names[0]
        for before, tag in zip(["O", *row["tags"]], row["tags"]):
            assert not tag.startswith("I-") or before[2:] == tag[2:]
    kinds = {tag[2:] for row in rows(folders / "ner", "train") for tag in row["tags"] if tag != "O"}
    assert kinds == {"FUNCTION", "ARGUMENT", "DEFAULT", "EXCEPTION"}


def test_a_function_is_whole_and_its_docstring_is_taken_out():
    by_place = {function.place: function for function in functions()}
    dedent = by_place["textwrap.shorten"]
    assert dedent.header.startswith("def shorten(text, width, **kwargs):")
    assert dedent.summary == "Collapse and truncate the given text to fit in the given width."
    assert '"""' not in dedent.source
    assert dedent.body.startswith("    w = TextWrapper(")


@pytest.mark.parametrize(
    ("number", "english", "chinese"),
    [
        (0, "zero", "零"),
        (10, "ten", "十"),
        (19, "nineteen", "十九"),
        (20, "twenty", "二十"),
        (105, "one hundred and five", "一百零五"),
        (110, "one hundred and ten", "一百一十"),
        (1000, "one thousand", "一千"),
        (1005, "one thousand and five", "一千零五"),
        (3205, "three thousand two hundred and five", "三千二百零五"),
        (3250, "three thousand two hundred and fifty", "三千二百五十"),
        (10_010, "ten thousand and ten", "一万零一十"),
        (100_000, "one hundred thousand", "十万"),
        (150_000, "one hundred and fifty thousand", "十五万"),
        (2_000_300, "two million three hundred", "二百万零三百"),
        (
            9_999_999,
            "nine million nine hundred and ninety-nine thousand nine hundred and ninety-nine",
            "九百九十九万九千九百九十九",
        ),
    ],
)
def test_numbers_in_words(number, english, chinese):
    assert dates.english_number(number) == english
    assert dates.chinese_number(number) == chinese


@pytest.mark.parametrize(
    ("minute", "english", "chinese"),
    [
        (0, "12:00 a.m.", "凌晨零点整"),
        (5, "12:05 a.m.", "凌晨零点零五分"),
        (125, "2:05 a.m.", "凌晨两点零五分"),
        (690, "11:30 a.m.", "上午十一点三十分"),
        (720, "12:00 p.m.", "中午十二点整"),
        (850, "2:10 p.m.", "下午两点十分"),
        (1435, "11:55 p.m.", "晚上十一点五十五分"),
    ],
)
def test_times_in_words(minute, english, chinese):
    assert dates.english_time(minute) == english
    assert dates.chinese_time(minute) == chinese


def test_dates_and_their_weekdays(folders):
    assert dates.english_date(date(2014, 3, 3)) == "March 3, 2014"
    assert dates.chinese_date(date(2014, 3, 3)) == "2014年3月3日"
    chinese = dict(zip("一二三四五六日", range(7)))
    seen = 0
    for row in rows(folders / "translation", "train"):
        found = re.fullmatch(r"(\d+)年(\d+)月(\d+)日，星期(.)", row["zh"])
        if found:
            seen += 1
            assert date(*map(int, found.groups()[:3])).weekday() == chinese[found[4]]
    assert seen > 100
