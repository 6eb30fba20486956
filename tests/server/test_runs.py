"""The routes by which the page shows runs: what they tell, and that nothing else of the disk can be read by them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ownlm.cli import main
from ownlm.server.runs import MOST_POINTS, RunFolder
from tests.server.live import Live, error_of, live


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A folder with one finished run, a file beside it, and a folder that is no run."""
    shutil.copytree(model_folder, tmp_path / "runs" / "deep" / "first")
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    (tmp_path / "runs" / "other").mkdir()
    return tmp_path / "runs"


@pytest.fixture
def server(model_folder: Path, folder: Path) -> Iterator[Live]:
    with live(model_folder) as found:
        found.state.runs = RunFolder(folder)
        yield found


def get(server: Live, path: str) -> Any:
    answer = server.client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_run_with_its_curves_and_its_report(server, folder):
    listed = get(server, "/runs")
    assert listed["served"] is True
    (run,) = listed["data"]
    assert run["name"] == "deep/first"
    assert run["finished"] is True
    assert run["max_steps"] == 20
    assert run["loss"] > 0
    log = get(server, f"/runs/{run['id']}/log")
    lines = (folder / "deep" / "first" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [entry for entry in map(json.loads, lines) if entry["kind"] == "step"]
    assert [row[:2] for row in log["steps"]] == [[entry["step"], entry["loss"]] for entry in steps]
    assert log["validations"][-1][0] == 20
    assert (log["more"], log["restarted"]) == (False, False)
    report = server.client.get(f"/runs/{run['id']}/report.html")
    assert report.content == (folder / "deep" / "first" / "report.html").read_bytes()
    assert "sandbox" in report.headers["content-security-policy"]
    assert "script" not in report.headers["content-security-policy"]
    assert server.client.get(run["report"]).content == report.content


def test_a_log_that_grows_is_read_on_and_one_that_begins_again_is_read_anew(server, folder):
    (run,) = get(server, "/runs")["data"]
    log = folder / "deep" / "first" / "log.jsonl"
    after = get(server, f"/runs/{run['id']}/log")["next"]
    with log.open("a", encoding="utf-8") as stream:
        stream.write('{"kind": "step", "step": 21, "loss": 1.5}\nnot json\n[1]\n{"kind": "step", "step": 22')
    more = get(server, f"/runs/{run['id']}/log?after={after}")
    assert more["steps"] == [[21, 1.5, None, None]]
    with log.open("a", encoding="utf-8") as stream:
        stream.write(', "loss": NaN}\n')
    assert get(server, f"/runs/{run['id']}/log?after={more['next']}")["steps"] == [[22, None, None, None]]
    log.write_text('{"kind": "step", "step": 1, "loss": 9.0}\n', encoding="utf-8")
    anew = get(server, f"/runs/{run['id']}/log?after={more['next']}")
    assert anew["restarted"] is True
    assert anew["steps"] == [[1, 9.0, None, None]]


def test_a_long_log_becomes_the_means_of_neighbours(server, folder):
    (run,) = get(server, "/runs")["data"]
    rows = [
        {"kind": "step", "step": n, "loss": n % 2, "tokens_per_second": 7}
        for n in range(1, 4 * MOST_POINTS + 1)
    ]
    (folder / "deep" / "first" / "log.jsonl").write_text(
        "\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8"
    )
    steps = get(server, f"/runs/{run['id']}/log")["steps"]
    assert len(steps) == MOST_POINTS
    assert steps[0] == [2.5, 0.5, None, 7]


@pytest.mark.parametrize(
    "name", ["nothing", "..", "%2e%2e", "..%2f..%2fsecret.txt", "deep%2ffirst", "0" * 16]
)
def test_no_other_folder_is_reached(server, name):
    for path in (f"/runs/{name}/log", f"/runs/{name}/report.html"):
        answer = server.client.get(path)
        assert answer.status_code == 404
        error_of(answer)


def test_a_link_out_of_the_folder_is_not_followed(server, folder):
    run = folder / "deep" / "first"
    for name in ("report.html", "log.jsonl"):
        (run / name).unlink()
        (run / name).symlink_to(folder.parent / "secret.txt")
    (listed,) = get(server, "/runs")["data"]
    assert server.client.get(f"/runs/{listed['id']}/report.html").status_code == 404
    assert get(server, f"/runs/{listed['id']}/log")["next"] == 0


@pytest.mark.parametrize("after", ["-1", "x", "1.5", "²", "9" * 30])
def test_a_place_that_is_none(server, after):
    (run,) = get(server, "/runs")["data"]
    answer = server.client.get(f"/runs/{run['id']}/log", params={"after": after})
    assert answer.status_code == 400
    assert error_of(answer)["param"] == "after"


def test_keys_and_tickets(model_folder, folder):
    with live(model_folder, keys={"alice": "a-long-secret"}) as server:
        server.state.runs = RunFolder(folder)
        assert get(server, "/page/access") == {"key": True}
        assert server.client.get("/runs").status_code == 401
        listed = server.client.get("/runs", headers={"authorization": "Bearer a-long-secret"}).json()["data"]
        (run,) = listed
        assert server.client.get(f"/runs/{run['id']}/log").status_code == 401
        assert server.client.get(run["report"]).status_code == 200
        assert server.client.get(f"/page/report/{run['id']}?ticket=no").status_code == 401
        assert server.client.get(f"/page/report/{run['id']}").status_code == 401


def test_a_server_without_runs(model_folder):
    with live(model_folder) as server:
        assert get(server, "/page/access") == {"key": False}
        assert get(server, "/runs") == {"object": "list", "served": False, "data": []}
        answer = server.client.get("/runs/x/log")
        assert (answer.status_code, "--runs" in error_of(answer)["message"]) == (404, True)


def test_what_somebody_else_wrote_into_run_json_breaks_nothing(server, folder):
    path = folder / "deep" / "first" / "run.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(
        json.dumps(facts | {"result": [1], "plan": "x", "model": {"parameters": "many"}}), encoding="utf-8"
    )
    (run,) = get(server, "/runs")["data"]
    assert (run["loss"], run["max_steps"], run["parameters"]) == (None, None, None)
    path.write_text("{", encoding="utf-8")
    (run,) = get(server, "/runs")["data"]
    assert "cannot be read" in run["problem"]


def test_tasks_with_their_scores(server):
    model = server.state.models.first
    model.loaded.run["scores"] = {"qa": {"before": None, "after": {"f1": {"value": 0.5}}, "data": "x"}}
    (offer,) = get(server, "/v1/tasks")["data"]
    assert offer["id"] == "run"
    assert set(offer["tasks"]) == {"translate", "answer", "classify", "summarize"}
    assert offer["tasks"]["answer"]["after"]["f1"]["value"] == 0.5
    assert offer["tasks"]["translate"] is None


def test_the_option(model_folder, tmp_path, capsys):
    assert main(["serve", str(model_folder), "--runs", str(tmp_path / "nothing"), "--port", "0"]) == 2
    assert "--runs" in capsys.readouterr().err
    from tests.server.test_serve import process

    with process([str(model_folder), "--runs", str(model_folder.parent)]) as server:
        import httpx

        listed = httpx.get(f"{server.url}/runs", timeout=60).json()["data"]
        assert [run["name"] for run in listed] == [model_folder.name]
