"""The page that compares runs."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.report.test_page import EVIL, check, metric, step

from ownlm.report.compare import curves, figure_rows, write_comparison
from ownlm.report.log import Log, read_log


def compared(**changes: Any) -> dict[str, Any]:
    """What the verb hands over about two runs."""
    rows = [
        {
            "label": label, "parameters": 3_412_992, "steps": 300, "tokens": 1_000_000, "epochs": 1.5, "seconds": 60.0,
            "tokens_per_second": 16_666.0, "loss": metric(3.1), "perplexity": None, "bits_per_byte": metric(1.2),
            "data": "books", "data_hash": "abcdef0123456789", "repeat": f"ownlm pretrain books -o {label}",
            "finished": True,
        }
        for label in ("one", "two")
    ]  # fmt: skip
    content = {
        "runs": rows,
        "same": {"data": True, "held_out_text": True, "tokenizer": True, "machine": True},
        "notes": [],
        "settings": {"learning_rate": [0.004, 0.002]},
        "environment": {},
        "differences": [metric(-0.05)],
        "resampled": "documents",
        "not_paired": "",
    }
    return content | changes


def log(steps: int) -> Log:
    """Losses of steps of 100 tokens, with a validation every hundred."""
    return Log(
        [step(number, tokens=100 * number) for number in range(1, steps + 1)],
        [
            {"step": n, "loss": 2.5, "bits_per_byte": 1.4, "seconds": 0.2 * n}
            for n in range(100, steps + 1, 100)
        ],
        [
            {"step": 1, "prompt": "The", "text": " early words"},
            {"step": steps, "prompt": "The", "text": " late words"},
        ],
    )


def written(folder: Path, log_: Log, content: dict[str, Any]) -> str:
    runs = [folder / "one", folder / "two"]
    for run in runs:
        run.mkdir()
        lines = [{"kind": kind, **line} for kind, lines in (("step", log_.steps), ("validation", log_.validations), ("sample", log_.samples)) for line in lines]  # fmt: skip
        (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert len(read_log(run / "log.jsonl").steps) == len(log_.steps)
    write_comparison(folder / "page.html", runs, content)
    page = (folder / "page.html").read_text(encoding="utf-8")
    check(page)
    return page


def test_one_page_holds_it_all_and_needs_nothing_else(tmp_path):
    page = written(tmp_path, log(300), compared(notes=["Something to know."]))
    for words in (
        "one, two",
        "learning_rate",
        "0.002",
        "Something to know.",
        "-0.05 (",
        "better",
        "abcdef012345",
    ):
        assert words in page
    assert " late words" in page and " early words" not in page
    assert "ownlm pretrain books -o two" in page
    assert "http:" not in page and "https:" not in page and "<script" not in page


def test_words_from_outside_are_only_words(tmp_path):
    content = compared()
    content["runs"][0] |= {"label": EVIL, "repeat": EVIL, "data": EVIL}
    content["settings"] = {EVIL: [EVIL, None]}
    samples = log(20)
    samples.samples = [{"step": 1, "prompt": EVIL, "text": EVIL + "\x1b[0m"}]
    page = written(tmp_path, samples, content)
    assert "<script" not in page and "\x1b" not in page


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-0.2, -0.1, "better"), (0.1, 0.2, "worse"), (-0.1, 0.1, "not clearly different")],
)
def test_what_an_interval_lets_one_say(low, high, verdict):
    change = {"value": (low + high) / 2, "low": low, "high": high, "n": 40}
    rows = dict(figure_rows(compared(differences=[change])))
    assert rows["so it is"] == ["", verdict]
    assert "perplexity, a token" not in rows  # no run has one


def test_curves_lie_where_tokens_and_seconds_were(tmp_path):
    logs = [log(60), log(300)]
    by_tokens, by_seconds = curves(logs, ["one", "two"], compared())
    short, long, checks = by_tokens.series  # the short run has no validation
    assert short.points[0][0] == 100 and short.points[-1][0] == 6000
    assert long.points[0][0] == 1600 and long.points[-1][0] == 30000  # without the first 5 %
    assert checks.points == [(10000, 2.5), (20000, 2.5), (30000, 2.5)]
    assert by_seconds.series[-1].points[0] == (20.0, 2.5)
    assert "5\u00a0%" in by_tokens.caption and "loss, nats a token" in by_tokens.caption
    [only_short] = [curves([logs[0]], ["one"], compared(runs=compared()["runs"][:1]))[0]]
    assert "5\u00a0%" not in only_short.caption


def test_curves_across_tokenizers_count_bits_per_byte():
    same = {"data": False, "held_out_text": True, "tokenizer": False, "machine": True}
    by_tokens, _ = curves([log(300), log(300)], ["one", "two"], compared(same=same))
    assert "bits per byte" in by_tokens.caption and "loss" not in by_tokens.caption
    assert by_tokens.series[1].points[0] == (10000, 1.4)


def test_runs_without_a_log_have_no_curves(tmp_path):
    page = written(tmp_path, Log(), compared(differences=[], not_paired="a reason"))
    assert 'id="curves"' not in page and 'id="samples"' not in page
    assert "No paired difference: a reason." in page
