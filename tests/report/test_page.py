"""The page as a whole."""

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ownlm.console.errors import UsageError
from ownlm.report import write_report
from ownlm.report.facts import fact_rows

EVIL = "<script>alert(1)</script>"


def metric(value: float, spread: float = 0.02, n: int = 69) -> dict[str, float]:
    return {"value": value, "low": value - spread, "high": value + spread, "n": n}


def run_json(**changes: Any) -> dict[str, Any]:
    return {
        "format": "ownlm run 1",
        "ownlm": "0.1.0",
        "created": "2026-11-23T22:10:00+00:00",
        "command": "ownlm quickstart",
        "repeat": "ownlm pretrain corpus -o run --max-steps 40",
        "settings": {"learning_rate": 0.004, "set": [], "resume": False},
        "plan": {"max_steps": 40, "schedule": {"warmup_steps": 20}},
        "model": {"size": "3M", "parameters": 3_412_992, "embedding_parameters": 786_432},
        "data": {"corpus": "corpus", "hash": "abc", "train_bytes": 11_800_112},
        "environment": {"cpu": "Some CPU"},
        "taught": ["continues text"],
        "cost": {"seconds": 301.2, "tokens": 15_073_280, "mfu": 0.47},
        "result": {"bits_per_byte": metric(1.193)},
        "finished": True,
        **changes,
    }


def step(number: int, **values: Any) -> dict[str, Any]:
    return {
        "kind": "step",
        "step": number,
        "loss": 8 / (number + 1) + 2,
        "bits_per_byte": 4 / (number + 1) + 1,
        "learning_rate": 0.004,
        "seconds": number * 0.2,
        "tokens_per_second": 50_000.0,
        **values,
    }


def make(folder: Path, run: dict[str, Any], log: list[dict[str, Any]] | None = None, **files: Any) -> str:
    """Write a run folder, its report, and give back the page (checked to be well formed)."""
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    if log is not None:
        text = "".join(json.dumps(line) + "\n" for line in log)
        (folder / "log.jsonl").write_text(text, encoding="utf-8")
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    path = write_report(folder)
    assert path == folder / "report.html"
    page = path.read_text(encoding="utf-8")
    check(page)
    return page


class Balance(HTMLParser):
    """Every element that is opened is closed, in order; identities are unique."""

    EMPTY = frozenset({"meta", "link", "br", "line", "circle", "path", "img", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]
        assert not any(name.startswith("on") for name, _ in attrs)
        assert tag not in ("script", "link", "iframe", "object", "embed")
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.EMPTY:
            assert self.open.pop() == tag


def check(page: str) -> None:
    balance = Balance()
    balance.feed(page)
    balance.close()
    assert balance.open == []
    assert len(balance.ids) == len(set(balance.ids))
    assert not re.search(r"https?:|url\(|@import|src=", page), "the page must need nothing from outside"
    for picture in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        root = ElementTree.fromstring(picture)
        labelled = root.attrib["aria-labelledby"].split()
        assert {element.attrib.get("id") for element in root.iter()} >= set(labelled)
        assert "nan" not in picture.lower().replace("nats", "")
    for name in re.findall(r'class="chart"', page):
        assert name


FACTS = {
    "prompt": "def read(path):\n",
    "facts": [
        {
            "name": "Held-out bits per byte",
            "value": metric(1.193),
            "unit": "",
            "baselines": [
                {"name": "xz -9", "value": 1.131, "better": "lower"},
                {"name": "gzip -9", "value": 1.702, "better": "lower"},
            ],
            "note": "whole packages",
        },
        {
            "name": "Prefers the true line",
            "value": metric(0.872, 0.03, 500),
            "unit": "share",
            "baselines": [
                {"name": "4-gram counter", "value": 0.861, "better": "higher"},
                {"name": "chance", "value": 0.5, "better": "higher"},
            ],
        },
    ],
    "samples": [
        {"seconds": 0, "text": "def read(path):\nxx"},
        {"seconds": 30, "text": "    return 春眠不覺曉"},
    ],
}


def test_everything_is_on_the_page(tmp_path):
    log = [step(n) for n in range(1, 41)] + [{"kind": "validation", "step": 40, "bits_per_byte": 1.2}]
    page = make(tmp_path / "诗-run", run_json(), log, facts=FACTS)
    for expected in (
        "诗-run",
        "3.41M",
        "5 min 1 s",
        "50,044",
        "1.193",
        "1.131",
        "ahead of gzip -9, behind xz -9",
        "lower is better",
        "87.2\u00a0%",
        "ahead of chance, not clearly different from 4-gram counter",
        "before training",
        "after 30 s",
        "春眠不覺曉",
        "What it learned",
        "Learning rate",
        "step 40: 1.2",
        "ownlm pretrain corpus -o run --max-steps 40",
        "schedule.warmup_steps",
        "Some CPU",
        "prefers-color-scheme: dark",
    ):
        assert expected in page, expected
    assert page.count("def read(path)") == 2  # the repeated prompt is shown once a sample


def test_bars_are_in_proportion():
    first = fact_rows(FACTS, {})[0]
    lengths = {bar.name: bar.length for bar in first.bars}
    assert lengths["gzip -9"] == 1.0
    assert lengths["this model"] == pytest.approx(1.193 / 1.702)
    second = fact_rows(FACTS, {})[1]
    assert second.bars[0].length == pytest.approx(0.872)  # shares are drawn on a scale of 0 to 100 %
    assert second.bars[0].low == pytest.approx(0.842)
    percent = fact_rows({"facts": [{"name": "p", "value": 41, "unit": "%"}]}, {})[0]
    assert (percent.bars[0].length, percent.bars[0].text, percent.is_alone) == (0.41, "41 %", False)


def test_hostile_text_is_escaped_everywhere(tmp_path):
    run = run_json(command=EVIL, settings={EVIL: EVIL}, data={"corpus": EVIL}, environment={"cpu": EVIL})
    facts = {
        "facts": [
            {
                "name": EVIL,
                "value": 1,
                "unit": EVIL,
                "note": EVIL,
                "baselines": [{"name": EVIL, "value": 2, "better": "lower"}],
            }
        ],
        "samples": [{"seconds": 1, "text": EVIL + "\x00\x1b"}],
        "prompt": EVIL,
    }
    log = [{"kind": "sample", "prompt": EVIL, "text": EVIL}, step(1)]
    page = make(tmp_path / "run", run, log, facts=facts)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\x00" not in page
    assert "\x1b" not in page


def test_only_run_json_is_needed(tmp_path):
    page = make(tmp_path / "run", {"format": "ownlm run 1", "finished": False})
    assert "not finished" in page
    assert "<svg" not in page


def test_without_facts_the_closing_figures_stand_there(tmp_path):
    page = make(tmp_path / "run", run_json(), [step(1)])
    assert "bits per byte" in page
    assert "Closing figures" in page
    assert "1.173 to 1.213" in page
    assert 'class="track"' not in page


def test_one_step_no_validation(tmp_path):
    page = make(tmp_path / "run", run_json(), [step(1)])
    assert page.count("<svg") == 6
    assert "<circle" in page


def test_losses_that_are_no_numbers_are_left_out_and_said(tmp_path):
    log = [
        step(n, loss=float("nan"), bits_per_byte=float("inf")) if n > 30 else step(n) for n in range(1, 41)
    ]
    page = make(tmp_path / "run", run_json(), log)
    assert "10 of 40 logged steps have a loss that is no number, the first is step 31." in page
    page = make(tmp_path / "bad", run_json(), [step(1, loss=float("nan"), bits_per_byte=None)])
    assert "What it learned" not in page


def test_a_long_log_stays_a_small_page(tmp_path):
    page = make(tmp_path / "run", run_json(), [step(n) for n in range(1, 100_001)])
    longest = max(re.findall(r' d="([^"]*)"', page), key=len)
    assert longest.count("L") <= 2 * 600
    assert len(page) < 300_000
    assert ">80k<" in page


def test_many_and_long_samples_are_cut_and_that_is_said(tmp_path):
    log = [
        {"kind": "sample", "step": n, "seconds": n, "prompt": "p", "text": f"text {n} "} for n in range(50)
    ]
    log[-1]["text"] = "字" * 10_000
    page = make(tmp_path / "run", run_json(), log)
    assert page.count('class="sample"') == 12
    assert "text 0 " in page
    assert "38 more samples stand in log.jsonl" in page
    assert "6,000 more characters are not shown" in page


MANIFEST = {
    "format": "ownlm corpus 1",
    "hash": "abc",
    "sources": {"files": 812, "bytes": 13_204_112, "bytes_not_read": 40_211},
    "steps": [
        {
            "step": "near duplicates",
            "documents_in": 809,
            "documents_out": 789,
            "bytes_in": 100,
            "bytes_out": 90,
            "dropped": {"near duplicate": 20},
        }
    ],
    "tokenizer": {"type": "bpe", "vocab_size": 4096, "bytes_per_token": 3.31, "why": "chosen by rule"},
    "splits": {
        "train": {"documents": 720, "bytes": 11_800_112, "tokens": 3_560_000},
        "validation": {"documents": 69, "bytes": 1_198_000, "tokens": 361_000, "rule": "last tenth"},
    },
    "overlap": {"ngram": 13, "share": metric(0.0123, 0.001)},
}


def test_the_corpus_is_shown_when_it_is_the_same_one(tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "corpus.json").write_text(json.dumps(MANIFEST))
    page = make(tmp_path / "run", run_json())
    for expected in (
        "812",
        "40.2 kB",
        "720 documents",
        "last tenth",
        "near duplicate: 20",
        "1.23\u00a0%",
        "by rule",
    ):
        assert expected in page, expected
    page = make(tmp_path / "run", run_json(data={"corpus": "corpus", "hash": "other"}))
    assert "has changed since" in page
    assert "720 documents" not in page
    page = make(tmp_path / "run", run_json(data={"corpus": "gone/away"}))
    assert "not reachable" in page
    assert "gone/" not in page


@pytest.mark.parametrize(
    "wrong",
    [{"facts": 3}, {"facts": [None, {"name": "x"}, {"value": "y"}], "samples": [1]}, {"samples": "no"}],
)
def test_wrong_facts_do_not_break_the_page(tmp_path, wrong):
    make(tmp_path / "run", run_json(), [step(1)], facts=wrong)


def test_unreadable_facts_are_said(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "facts.json").write_text("{")
    assert "facts.json cannot be read" in make(folder, run_json())


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="not a run folder"):
        write_report(tmp_path)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(UsageError, match="not a JSON object"):
        write_report(tmp_path)


def test_an_old_report_is_replaced_as_a_whole(tmp_path):
    folder = tmp_path / "run"
    make(folder, run_json())
    make(folder, run_json(command="second"))
    assert "second" in (folder / "report.html").read_text(encoding="utf-8")
    assert not list(folder.glob("*.part"))
