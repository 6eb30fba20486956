"""The tasks of a run on its page: figures, tables, rows to choose from, and files that others wrote."""

from __future__ import annotations

import json
import re
from html import unescape

import pytest
from tests.report.test_page import EVIL, check, metric, run_json

from ownlm.report import write_report


def row(number, expected, got, right, **values):
    return {"where": f"rows.jsonl:{number}", "input": f"text {number}", "expected": expected, "got": got,
            "right": right, "values": values}  # fmt: skip


def content(**changes):
    return {
        "task": "sentiment",
        "data": "rows.jsonl",
        "rows": 40,
        "metrics": {"accuracy": metric(0.75, 0.1, 40)},
        "names": {
            "accuracy": {"words": "accuracy", "unit": "share", "better": "higher", "source": "right rows"}
        },
        "before": {"accuracy": metric(0.5, 0.1, 40)},
        "baselines": [{"name": "always a", "metrics": {"accuracy": metric(0.6, 0.1, 40)}}],
        "confusion": {"labels": ["a", "b"], "counts": [[3, 1], [0, 4]]},
        "classes": [{"name": "a", "precision": 1.0, "recall": 0.75, "f1": 0.857, "n": 4}],
        "how": {"rule": "how it was counted"},
        "notes": ["a note"],
        "wrong": 1,
        "shown": [
            row(3, ["a"], "b", False, accuracy=0.0, confidence=0.9),
            row(1, ["b"], "b", True, accuracy=1.0, confidence=0.6),
        ],
        **changes,
    }


@pytest.fixture
def page(tmp_path):
    """The page of a run whose tasks are given; checked to be well formed."""

    def make(*tasks):
        (tmp_path / "run.json").write_text(json.dumps(run_json()), encoding="utf-8")
        (tmp_path / "scores").mkdir(exist_ok=True)
        for number, task in enumerate(tasks):
            text = task if isinstance(task, str) else json.dumps(task)
            (tmp_path / "scores" / f"{number}.json").write_text(text, encoding="utf-8")
        text = write_report(tmp_path).read_text(encoding="utf-8")
        check(text)
        return text

    return make


def words(text: str) -> str:
    return " ".join(unescape(re.sub("<style.*?</style>|<[^>]*>", " ", text, flags=re.DOTALL)).split())


def test_figures_tables_and_rows(page):
    text = page(content())
    said = words(text)
    assert "Sentiment Measured on rows.jsonl, 40 rows. a note accuracy higher is better" in said
    assert "this model 75.0 %" in said and "before fine-tuning 50.0" in said and "always a 60.0" in said
    assert "The model is ahead of before fine-tuning and always a. right rows" in said.replace("  ", " ")
    assert "a 100.0 % 75.0 % 85.7 % 4" in said
    assert "expected ↓ got → a b a 3 1 b 0 4" in said
    assert "input expected got confidence text 3 rows.jsonl:3 a b 90 % text 1 rows.jsonl:1 b b 60 %" in said
    assert "38 more rows are not shown" in said


def test_rows_are_chosen_by_state_and_by_label_without_a_script(page):
    text = page(content())
    assert "all wrong (1) right (1)" in words(text)
    assert "every label expected a (1) expected b (1)" in words(text)
    chosen = dict(re.findall(r'<tr class="(\w+ e\d)"><td><div class="text" dir="auto">(text \d)', text))
    assert chosen == {"wrong e0": "text 3", "right e1": "text 1"}
    for name in ("wrong", "partly", "right", "e0", "e11"):
        assert f".rows .{name}:checked ~ .scroll tbody tr:not(.{name})" in text
    for number in re.findall(r'<label for="([^"]*)"', text):
        assert f'id="{number}"' in text


def test_an_answer_can_be_partly_right(page):
    qa = content(
        task="qa", confusion=None, classes=[], metrics={"exact_match": metric(0.5)},
        names={"f1": {"words": "f1", "unit": "share"}}, before=None, baselines=[],
        shown=[row(1, ["a b"], "a", False, exact_match=0.0, f1=0.66), row(2, ["a"], "z", False, exact_match=0.0, f1=0.0)],
    )  # fmt: skip
    said = words(page(qa))
    assert "wrong (1) partly right (1)" in said and "Question answering" in said
    assert "got f1 text 1 rows.jsonl:1 a b a 66 %" in said


def test_rows_that_are_neither_right_nor_wrong_have_no_filter(page):
    names = {"bleu": {"words": "BLEU", "unit": "points", "better": "higher"}}
    translation = content(
        task="translation", confusion=None, classes=[], metrics={"bleu": metric(27.4)}, names=names,
        shown=[row(1, ["x", "y"], "z", None, chrf=12.34)],
    )  # fmt: skip
    text = page(translation)
    assert "<input" not in text
    assert "the least like what was expected first" in text and "x or y z 12.3" in words(text)


def test_what_is_from_outside_is_escaped(page):
    evil = content(
        task=EVIL, data=EVIL, notes=[EVIL], how={EVIL: EVIL}, classes=[{"name": EVIL}],
        confusion={"labels": [EVIL, "\x00"], "counts": [[1, 2], [3, 4]]}, baselines=[{"name": EVIL, "metrics": {}}],
        shown=[{"where": EVIL, "input": EVIL + "\x1b", "expected": [EVIL], "got": EVIL, "right": False, "values": {}}],
    )  # fmt: skip
    text = page(evil)
    assert "<script" not in text and "\x1b" not in text and "\x00" not in text


@pytest.mark.parametrize("broken", ["{", "[]", '{"shown": 3, "metrics": [], "notes": 1, "how": 2, "confusion": 7}', "{}",
                                    '{"metrics": {"a": "x"}, "shown": [{"expected": 4, "values": 5}], "rows": "n"}',
                                    '{"confusion": {"labels": ["a"], "counts": [3, [1]]}, "before": 3}'])  # fmt: skip
def test_files_that_are_not_ours(page, broken):
    text = page(content(), broken)
    assert "Sentiment" in text
    if broken in ("{", "[]"):
        assert "scores/1.json cannot be read" in text
