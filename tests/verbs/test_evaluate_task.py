"""`evaluate --task`: rows in, figures out, into the run and its report; what cannot be measured is refused before."""

from __future__ import annotations

import json
import shutil
from html import unescape

import pytest

import ownlm
from ownlm.cli import main
from ownlm.console.lock import only_one

FILMS = [("a warm and funny film", "positive"), ("dull", "negative"), ("slow and cold", "negative")]


@pytest.fixture
def typed(capsys):
    """Types `ownlm evaluate …`; gives (exit code, standard output, standard error)."""

    def evaluate(*words):
        code = main(["evaluate", *map(str, words)])
        return (code, *capsys.readouterr())

    return evaluate


@pytest.fixture
def own_run(run, tmp_path):
    """A run folder that a test may write into."""
    copy = tmp_path / "own"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("checkpoints"))
    return copy


@pytest.fixture
def rows(tmp_path):
    """Writes rows as a jsonl file."""

    def write(*values, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in values), encoding="utf-8")
        return path

    return write


@pytest.fixture
def films(rows):
    return rows(*({"text": text, "label": label} for text, label in FILMS * 4))


@pytest.fixture
def says(monkeypatch):
    """Puts answers in place of the model's; notes what was asked."""
    asked = []

    def put(answers):
        def predictions(loaded, task, items, **options):
            asked.append((task, items, options))
            return [answers(item) if callable(answers) else answers for item in items]

        monkeypatch.setattr("ownlm.predicting.predictions", predictions)
        return asked

    return put


def positive(item):
    return {"label": "positive", "scores": {"positive": 0.7, "negative": 0.3}}


def test_zero_shot_figures_are_those_of_the_methods(typed, talker, films, tmp_path):
    """Nothing is replaced here: a model that was never taught to classify, through the command."""
    wide = shutil.copytree(talker, tmp_path / "wide")
    code, shown, said = typed(wide, films, "--task", "sentiment", "--json")
    found = json.loads(shown)
    labels = ["negative", "positive"]
    loaded = ownlm.load(wide)
    got = [loaded.classify([text], labels)[0][0]["label"] for text, _ in FILMS * 4]
    right = sum(label == expected for label, (_, expected) in zip(got, FILMS * 4))
    assert (code, found["rows"], found["task"]) == (0, 12, "sentiment")
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(right / 12)
    assert "calibration_error" in found["metrics"]
    assert found["baselines"][0]["name"] == "always negative"
    assert found["data"] == str(films)
    assert "labels to choose from" in said


def test_a_head_is_measured_by_its_own_labels_without_a_task(typed, rows, tmp_path):
    pytest.importorskip("transformers")
    from tests.peers.headed_models import build

    build("bert", "sequence-classification", tmp_path / "head")
    data = rows(*({"text": text, "label": number} for text, number in (("a warm film", 2), ("dull", 0))))
    code, shown, said = typed(tmp_path / "head", data, "--json")
    found = json.loads(shown)
    assert (code, found["task"], found["report"]) == (0, "classification", None)
    assert "0 = negative, 2 = positive" in said
    got = ownlm.load(tmp_path / "head").classify(["a warm film", "dull"])
    right = [one[0]["label"] == label for one, label in zip(got, ("positive", "negative"))]
    assert found["metrics"]["accuracy"]["value"] == sum(right) / 2


def test_tables_for_a_person(typed, own_run, films, says):
    says(positive)
    code, shown, said = typed(own_run, films, "--task", "sentiment")
    assert code == 0
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    accuracy = next(line for line in lines if line.startswith("accuracy"))
    assert accuracy.startswith("accuracy 33.3 % ") and " 12 66.7 % -33.3 (" in accuracy
    assert "always negative" in shown and "95 % interval" in shown
    assert "negative 0 8" in lines and "positive 0 4" in lines  # the confusion table
    assert any(line.startswith("calibration error (lower is better) 36.7 %") for line in lines)
    assert f"{own_run / 'report.html'}" in said
    assert f"ownlm evaluate {own_run} {films} --task sentiment --output rows.jsonl" in said


def test_the_figures_stand_in_the_run(own_run, films, says):
    says(positive)
    found = ownlm.evaluate(own_run, [str(films)], task="sentiment")
    written = json.loads((own_run / "run.json").read_text(encoding="utf-8"))
    assert written["scores"]["sentiment"] == {"before": None, "after": found["metrics"], "data": str(films)}
    assert written["result"] and written["format"] == "ownlm run 1"  # what was there is there
    ownlm.evaluate(own_run, [str(films)], task="classification")
    written = json.loads((own_run / "run.json").read_text(encoding="utf-8"))
    assert set(written["scores"]) == {"sentiment", "classification"}


def test_what_was_measured_before_fine_tuning_on_the_same_data_stays(own_run, films, says):
    says(positive)
    path = own_run / "run.json"
    before = {"accuracy": {"value": 0.1, "low": 0.0, "high": 0.2, "n": 12}}
    content = json.loads(path.read_text(encoding="utf-8"))
    scores = {"sentiment": {"before": before, "after": {}, "data": str(films)}}
    path.write_text(json.dumps(content | {"scores": scores}), encoding="utf-8")
    ownlm.evaluate(own_run, [str(films)], task="sentiment")
    assert json.loads(path.read_text(encoding="utf-8"))["scores"]["sentiment"]["before"] == before
    assert "before fine-tuning" in (own_run / "report.html").read_text(encoding="utf-8")
    other = films.with_name("other.jsonl")
    shutil.copy(films, other)
    ownlm.evaluate(own_run, [str(other)], task="sentiment")
    assert json.loads(path.read_text(encoding="utf-8"))["scores"]["sentiment"]["before"] is None


def test_the_report_shows_wrong_rows_first_and_escaped(own_run, rows, says):
    evil = "<script>alert(1)</script> & a film"
    data = rows({"text": "fine", "label": "positive"}, {"text": evil, "label": "negative"})
    says(positive)
    ownlm.evaluate(own_run, [str(data)], task="sentiment")
    page = (own_run / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and unescape(page).count(evil) == 1
    assert page.index("a film") < page.index(">fine<")
    assert f"{data}:2" in page
    assert 'class="wrong e' in page and 'class="right e' in page


def test_rows_written_to_a_file(typed, own_run, films, says, tmp_path):
    says(positive)
    output = tmp_path / "out.jsonl"
    assert typed(own_run, films, "--task", "sentiment", "--output", output)[0] == 0
    lines = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [line["where"] for line in lines] == [f"{films}:{n}" for n in range(1, 13)]
    assert lines[1] == {
        "where": f"{films}:2", "input": "dull", "expected": "negative", "got": "positive", "right": False,
        "accuracy": 0.0, "confidence": 0.7,
    }  # fmt: skip
    assert lines[0]["right"] is True
    assert [path.name for path in tmp_path.glob("out*")] == ["out.jsonl"]


def test_the_task_of_the_rows_is_taken_when_other_options_say_that_one_is_meant(
    typed, own_run, rows, says, tmp_path
):
    asked = says({"answer": "fox"})
    data = rows({"context": "A fox ran.", "question": "Who?", "answers": ["fox"]})
    code, shown, _ = typed(own_run, data, "--output", tmp_path / "o.jsonl", "--json")
    assert (code, json.loads(shown)["metrics"]["exact_match"]["value"]) == (0, 1)
    assert asked[0][0] == "qa"


def test_map_names_columns(typed, own_run, rows, says):
    asked = says({"text": "b"})
    data = rows({"abst": "A fox. A dog.", "title": "b"})
    words = ["--map", "abst=document", "--map", "title=summary"]
    code, shown, _ = typed(own_run, data, *words, "--json")
    assert code == 0 and json.loads(shown)["metrics"]["rouge1"]["value"] == 1
    assert asked[0][1][0].source == "A fox. A dog."
    code, shown, said = typed(own_run, data, "--map", "abstr=document", "--map", "title=summary")
    assert code == 2 and 'no column "abstr"' in said


def test_max_new_tokens_and_truncate_reach_the_model(typed, own_run, rows, films, says):
    asked = says({"text": "b"})
    data = rows({"prompt": "a", "completion": "b"}, name="prompts.jsonl")
    assert typed(own_run, data, "--task", "completion", "--max-new-tokens", 7, "--truncate")[0] == 0
    assert asked[0][2] == {"max_new_tokens": 7, "truncate": True}
    code, _, said = typed(own_run, films, "--task", "sentiment", "--max-new-tokens", 7)
    assert code == 2 and "sentiment writes no text" in said
    assert typed(own_run, data, "--task", "completion", "--max-new-tokens", 0)[0] == 2


def test_seed_changes_the_intervals_alone(own_run, films, says):
    says(positive)
    one, other = (ownlm.evaluate(own_run, [str(films)], task="sentiment", seed=seed) for seed in (0, 1))
    values = [{name: value["value"] for name, value in each["metrics"].items()} for each in (one, other)]
    assert values[0] == values[1]
    assert one["metrics"] != other["metrics"]


def test_rows_of_a_task_that_the_model_was_taught_need_no_task(typed, own_run, films, says):
    says(positive)
    text = json.loads(typed(own_run, films, "--json")[1])
    assert "bits_per_byte" in text  # a model that was taught none
    path = own_run / "run.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | {"taught": ["continues text", "sentiment"]}), encoding="utf-8")
    code, shown, said = typed(own_run, films, "--json")
    assert code == 0 and json.loads(shown)["task"] == "sentiment"
    assert "as text: --task text" in said
    assert "bits_per_byte" in json.loads(typed(own_run, films, "--task", "text", "--json")[1])


def test_parts_for_testing_are_measured_not_those_for_training(typed, own_run, rows, says, tmp_path):
    asked = says(positive)
    rows({"text": "a", "label": "positive"}, {"text": "b", "label": "negative"}, name="train.jsonl")
    rows({"text": "c", "label": "positive"}, name="test.jsonl")
    files = [tmp_path / "train.jsonl", tmp_path / "test.jsonl"]
    code, _, said = typed(own_run, *files, "--task", "sentiment")
    assert code == 0 and [item.text for item in asked[0][1]] == ["c"]
    scores = json.loads((own_run / "run.json").read_text(encoding="utf-8"))["scores"]
    assert scores["sentiment"]["data"] == str(files[1])
    assert "2 rows in files for training are not" in said and "one row says nothing about others" in said


def test_rows_of_another_shape_are_left_out_and_named(typed, own_run, rows, says):
    says(positive)
    good = {"text": "a", "label": "positive"}
    data = rows(good, {"prompt": "a", "completion": "b"}, {"text": " ", "label": "positive"}, good)
    code, shown, said = typed(own_run, data, "--task", "sentiment", "--json")
    assert (code, json.loads(shown)["rows"], json.loads(shown)["left_out"]) == (0, 2, 2)
    assert f"{data}:2: not of the shape text/label" in said
    assert f'{data}:3: "text" is empty' in said
    assert f"ownlm data check {data}" in said


def test_labels_that_are_the_numbers_of_the_models_labels_get_its_names(
    typed, own_run, rows, says, monkeypatch
):
    asked = says(positive)
    monkeypatch.setattr("ownlm.loaded.LoadedModel.labels", ("negative", "positive"), raising=False)
    data = rows({"text": "a", "label": 1}, {"text": "b", "label": 0})
    code, shown, said = typed(own_run, data, "--task", "sentiment", "--json")
    assert code == 0 and [item.label for item in asked[0][1]] == ["positive", "negative"]
    assert "0 = negative, 1 = positive" in said
    data = rows({"text": "a", "label": "happy"}, {"text": "b", "label": "sad"})
    code, shown, said = typed(own_run, data, "--task", "sentiment")
    assert (code, shown, len(asked)) == (3, "", 1)  # refused before the model is asked
    assert "none of the labels of these rows: happy, sad" in said and "negative, positive" in said


def test_tags_that_the_model_does_not_know_are_told(typed, own_run, rows, says, monkeypatch):
    says({"tags": ["O"]})
    monkeypatch.setattr("ownlm.loaded.LoadedModel.labels", ("O", "B-PER"), raising=False)
    code, _, said = typed(own_run, rows({"tokens": ["Bern"], "tags": ["B-LOC"]}), "--task", "ner")
    assert code == 0 and "does not know these tags of the rows: B-LOC" in said


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["{films}", "--task", "qa"], 3, "qa"),
        (["{empty}", "--task", "sentiment"], 3, "there is no row in it"),
        (["{blank}", "--task", "sentiment"], 3, "none of 2 rows can be used"),
        (["--task", "qa"], 2, "a task is measured on rows, and none are given"),
        (["{films}", "--task", "poetry"], 2, "poetry"),
        (["missing.jsonl", "--task", "qa"], 2, "missing.jsonl"),
        (
            ["{films}", "--task", "sentiment", "--output", "no/such/rows.jsonl"],
            2,
            "its folder does not exist",
        ),
        (["{films}", "--task", "sentiment", "--output", "{folder}"], 2, "is a folder"),
        (["{films}", "--task", "sentiment", "--stride", "3"], 2, "--stride"),
        (["{films}", "--task", "text", "--map", "a=text"], 2, "--map"),
        (["{films}", "--task", "ner"], 3, "ner"),
    ],
)
def test_what_is_refused(typed, own_run, films, rows, says, tmp_path, words, code, message):
    asked = says(positive)
    (tmp_path / "empty.json").write_text("[]", encoding="utf-8")
    blank = rows({"text": "", "label": "a"}, {"text": " ", "label": "a"}, name="blank.jsonl")
    places = {"films": films, "empty": tmp_path / "empty.json", "blank": blank, "folder": tmp_path}
    found, shown, said = typed(own_run, *(word.format(**places) for word in words))
    assert (found, shown) == (code, "") and message in said
    assert asked == []
    assert "scores" not in json.loads((own_run / "run.json").read_text(encoding="utf-8"))


def test_a_missing_package_is_said_before_the_model_answers(typed, own_run, rows, says, monkeypatch):
    asked = says({"text": "b"})
    monkeypatch.setattr("ownlm.evaluation.tasks.measuring.importlib.util.find_spec", lambda name: None)
    code, _, said = typed(own_run, rows({"en": "a", "de": "b"}), "--task", "translation")
    assert code == 2 and "ownlm[eval]" in said and asked == []


def test_a_run_that_another_process_writes_to_is_left_alone_which_is_said(typed, own_run, films, says):
    says(positive)
    with only_one(own_run):
        code, shown, said = typed(own_run, films, "--task", "sentiment")
    assert code == 0 and "accuracy" in shown
    assert "the figures are not kept in the run: another process is writing" in said
    assert not (own_run / "scores").exists()


@pytest.mark.parametrize("run_json", [None, '{"format": "of another program"}'])
def test_a_model_from_elsewhere_is_not_written_to(typed, own_run, films, says, run_json):
    says(positive)
    (own_run / "run.json").unlink()
    if run_json is not None:
        (own_run / "run.json").write_text(run_json, encoding="utf-8")
    before = {path.name: path.read_bytes() for path in own_run.iterdir() if path.is_file()}
    code, shown, _ = typed(own_run, films, "--task", "sentiment", "--json")
    assert code == 0 and json.loads(shown)["report"] is None
    assert {path.name: path.read_bytes() for path in own_run.iterdir() if path.is_file()} == before
    assert not (own_run / "scores").exists()
