"""Several processes with a part of each batch train as one with all of it; they stop, fail and go on together."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.training import real_runs
from tests.training.real_runs import KILL, assert_same_tensors, log_without_clock, run_command
from tests.training.test_lengths import a_plan
from torch import nn

import ownlm
from ownlm import cli
from ownlm.training import launched, parallel
from ownlm.training.plan import TrainPlan, rows_for

STEPS, SAVE, ROWS = 8, 4, 8
SETTINGS = ["--size", "1M", "--context", "32", "--set", "num_hidden_layers=2", "--set", "hidden_size=64",
            "--set", "intermediate_size=128", "--dtype", "float32", "--threads", "1", "--eval-steps", "4",
            "--max-steps", str(STEPS), "--save-steps", str(SAVE)]  # fmt: skip

# Sums are made in another order: fp32 rounding, carried through 8 steps. A lost half of a gradient moves weights by 1e-2.
WEIGHTS, LOSSES = 2e-5, 5e-6

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="torchrun does not run there")


def command(corpus: Path, run: Path, rows: int, accumulation: int = 1) -> list[str]:
    batch = ["--per-device-train-batch-size", str(rows), "--gradient-accumulation-steps", str(accumulation)]
    return ["pretrain", str(corpus), "-o", str(run), *SETTINGS, *batch]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def run_processes(
    arguments: list[str],
    folder: Path,
    *,
    at: int | None = None,
    sent: int = KILL,
    rank: int = 1,
    during: str = "step",
) -> tuple[list[int | None], list[str]]:
    """Run `ownlm ARGUMENTS` in two processes that find each other as those of torchrun do.

    Args:
        at, during, sent: when the process `rank` sends itself which signal, as in `real_runs.run_command`.

    Returns:
        Their exit codes and their words, without those of torch about the network.
    """
    port, words = free_port(), [folder / f"words-{number}" for number in range(2)]
    processes = [
        real_runs._context.Process(
            target=_process,
            args=(number, port, arguments, words[number], at if number == rank else None, during, sent),
        )
        for number in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        if process.exitcode is None:
            process.kill()
    said = (path.read_text().splitlines(keepends=True) for path in words)
    return [process.exitcode for process in processes], [
        "".join(line for line in lines if not line.startswith("[W")) for lines in said
    ]


def _process(
    rank: int, port: int, arguments: list[str], words: Path, at: int | None, during: str, sent: int
) -> None:
    place = {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    real_runs._command(arguments, words, at, during, sent)


def torchrun(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    start = ["--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *start, "-m", "ownlm", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def one(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    folder = tmp_path_factory.mktemp("one")
    assert run_command(command(corpus, folder / "run", ROWS), folder / "words") == 0
    return folder / "run"


@pytest.fixture(scope="module")
def two(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two processes with half of each batch."""
    folder = tmp_path_factory.mktemp("two")
    codes, words = run_processes(command(corpus, folder / "run", ROWS // 2), folder)
    assert codes == [0, 0], words
    assert words[1] == "", "only the first process speaks"
    return folder / "run"


def assert_equal_up_to_rounding(run: Path, expected: Path) -> None:
    """Weights, and every line of the log: its steps, losses, validations and checkpoints."""
    weights, others = load_file(run / "model.safetensors"), load_file(expected / "model.safetensors")
    assert weights.keys() == others.keys()
    for name in weights:
        assert (weights[name] - others[name]).abs().max() <= WEIGHTS, name
    lines, expected_lines = (
        [line for line in log_without_clock(path) if line["kind"] != "sample"] for path in (run, expected)
    )
    assert [(line["kind"], line["step"]) for line in lines] == [
        (line["kind"], line["step"]) for line in expected_lines
    ]
    for line, other in zip(lines, expected_lines):
        assert line == pytest.approx(other, abs=LOSSES), line
    assert sum(line["kind"] == "step" for line in lines) == STEPS


def unfinished(run: Path, folder: Path) -> Path:
    """A copy of a run as it was after its checkpoint in the middle."""
    copy = Path(shutil.copytree(run, folder))
    shutil.rmtree(copy / "checkpoints" / f"step-{STEPS}")
    (copy / "model.safetensors").unlink()
    content = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(content | {"finished": False}))
    return copy


def test_torchrun_with_half_the_batch_each_equals_one_process(corpus, one, two, tmp_path):
    done = torchrun(command(corpus, tmp_path / "run", ROWS // 2))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("model written to") == 1
    assert_equal_up_to_rounding(tmp_path / "run", one)
    assert_same_tensors(
        tmp_path / "run/model.safetensors", two / "model.safetensors"
    )  # and the same bits again
    content = json.loads((tmp_path / "run/run.json").read_text())
    assert content["plan"]["world_size"] == 2
    assert content["plan"]["tokens_per_step"] == ROWS * 32
    assert content["repeat"].startswith("torchrun --nproc-per-node 2 -m ownlm pretrain ")


def test_accumulation_in_two_processes_equals_one_batch(corpus, one, tmp_path):
    codes, words = run_processes(command(corpus, tmp_path / "run", ROWS // 4, 2), tmp_path)
    assert codes == [0, 0], words
    assert_equal_up_to_rounding(tmp_path / "run", one)


def test_a_run_of_two_goes_on_in_one(corpus, one, two, tmp_path):
    run = unfinished(two, tmp_path / "run")
    done = ownlm.pretrain(corpus, output=run, resume=True)
    assert_equal_up_to_rounding(run, one)
    assert done.content["resumed"] == [{"step": SAVE, "world_size": 1}]


def test_a_run_of_one_goes_on_in_two(corpus, one, tmp_path):
    run = unfinished(one, tmp_path / "run")
    codes, words = run_processes(["pretrain", str(corpus), "-o", str(run), "--resume"], tmp_path)
    assert codes == [0, 0], words
    assert "goes on with 2 processes" in words[0]
    assert_equal_up_to_rounding(run, one)


def test_a_refusal_is_said_once_and_ends_all_with_its_code(corpus, tmp_path):
    done = torchrun(["pretrain", str(corpus), "-o", str(tmp_path / "run"), *SETTINGS, "--gradient-accumulation-steps", "64"])  # fmt: skip
    assert done.stderr.count("cannot be shared out equally to 2 processes") == 1
    assert done.stderr.count("Try: --per-device-train-batch-size 1 for 128 rows a step") == 1
    assert done.stderr.count("exitcode  : 3 ") == 2, done.stderr
    assert not (tmp_path / "run").exists()


def test_a_wrong_option_is_said_once(corpus):
    codes, words = run_processes(["pretrain", str(corpus), "--max-stepp", "3"], corpus.parent)
    assert codes == [2, 2]
    assert "there is no option --max-stepp" in words[0]
    assert words[1] == ""


def test_verbs_of_one_process_are_refused(corpus, tmp_path):
    codes, words = run_processes(["evaluate", "last"], tmp_path)
    assert codes == [2, 2]
    assert "ownlm evaluate runs in one process" in words[0]
    assert words[1] == ""


def test_a_stop_that_one_is_asked_for_stops_all_after_the_same_step(corpus, one, tmp_path):
    run = tmp_path / "run"
    codes, words = run_processes(command(corpus, run, ROWS // 2), tmp_path, at=3, sent=signal.SIGTERM)
    assert codes == [130, 130], words
    assert words[0].count(f"stopped at step 3 of {STEPS}") == 1
    assert words[1] == ""
    assert f"torchrun --nproc-per-node 2 -m ownlm pretrain {corpus} -o {run} --resume" in words[0]
    assert os.listdir(run / "checkpoints") == ["step-3"]


def test_when_one_is_killed_the_first_saves_and_says_how_to_go_on(corpus, one, tmp_path):
    run = tmp_path / "run"
    codes, words = run_processes(command(corpus, run, ROWS // 2), tmp_path, at=7)
    assert codes == [1, -KILL], words
    assert words[0].count("another process has ended") == 1
    assert f"The checkpoint {run}/checkpoints/step-7 is whole." in words[0]
    ownlm.pretrain(corpus, output=run, resume=True)
    weights, others = load_file(run / "model.safetensors"), load_file(one / "model.safetensors")
    assert all((weights[name] - others[name]).abs().max() <= WEIGHTS for name in weights)


def test_when_the_first_is_killed_the_others_end(corpus, tmp_path):
    """They wait for it to write a checkpoint."""
    run = tmp_path / "run"
    codes, words = run_processes(
        command(corpus, run, ROWS // 2), tmp_path, at=2 * SAVE, during="checkpoint", rank=0
    )
    assert codes == [-KILL, 1]
    assert "Traceback" not in words[1]
    assert os.listdir(run / "checkpoints").count(f"step-{SAVE}") == 1


def test_a_run_that_diverges_is_said_once(corpus, tmp_path):
    arguments = [*command(corpus, tmp_path / "run", ROWS // 2), "--learning-rate", "1e12"]
    codes, words = run_processes(arguments, tmp_path)
    assert codes == [1, 1]
    assert words[0].count("training diverged") == 1
    assert words[1] == ""


def test_minutes_become_the_steps_of_the_first_process(corpus, tmp_path):
    arguments = command(corpus, tmp_path / "run", ROWS // 2)
    place = arguments.index("--max-steps")
    arguments[place : place + 2] = ["--minutes", "0.02"]
    codes, words = run_processes(arguments, tmp_path)
    assert codes == [0, 0], words
    content = json.loads((tmp_path / "run/run.json").read_text())
    assert content["plan"]["max_steps"] >= 1
    assert content["finished"]


def test_processes_that_cannot_find_each_other_are_refused(corpus, tmp_path, tiny, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ownlm.UsageError, match="several processes.*RANK is not set"):
        ownlm.pretrain(corpus, output=tmp_path / "x", max_steps=1, **tiny)
    for name, value in {
        "RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1",
        "LOCAL_WORLD_SIZE": "1",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ownlm.UsageError, match="several machines"):
        ownlm.pretrain(corpus, output=tmp_path / "x", max_steps=1, **tiny)


@pytest.mark.parametrize(
    ("count", "micro_batch", "accumulation"), [(1, 8, 3), (2, 6, 2), (3, 8, 1), (4, 6, 1), (24, 1, 1)]
)
def test_a_plan_keeps_its_rows_and_never_takes_larger_micro_batches(count, micro_batch, accumulation):
    plan = a_plan(per_device_train_batch_size=8, gradient_accumulation_steps=1, world_size=3, threads=4)
    shared = plan.shared_out(count, 5)
    assert shared.rows_per_step == plan.rows_per_step == 24
    assert (shared.per_device_train_batch_size, shared.gradient_accumulation_steps) == (
        micro_batch,
        accumulation,
    )
    assert TrainPlan.from_json(shared.to_json()) == shared
    assert shared.threads == (4 if count == 3 else 5)


def test_rows_that_cannot_be_shared_out_are_refused_with_what_can():
    plan = a_plan(per_device_train_batch_size=8, gradient_accumulation_steps=1, world_size=3)
    with pytest.raises(ownlm.Refused, match=r"24 rows .* 5 processes(.|\n)*--nproc-per-node 4 "):
        plan.shared_out(5, 1)
    assert rows_for(2048, 256, None, None, 4) == (2, 1)
    assert rows_for(2048, 256, 3, None, 4) == (3, 1)
    assert rows_for(2048, 256, None, 2, 4) == (1, 2)
    with pytest.raises(ownlm.Refused, match=r"8 rows .* 3 processes(.|\n)*size 3 for 9 rows"):
        rows_for(2048, 256, None, None, 3)


def test_gradients_are_summed_in_buckets_and_put_back(monkeypatch):
    """Every gradient is in one bucket, in order; buckets hold one dtype and no more than they should."""
    monkeypatch.setattr(parallel, "BUCKET_BYTES", 40)
    monkeypatch.setattr(parallel, "_all_reduce", lambda flat: flat.mul_(2))
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in ((2, 3), (4,), (30,), (1,))]
    parameters.append(nn.Parameter(torch.zeros(2, dtype=torch.bfloat16)))
    for number, parameter in enumerate(parameters[1:], 1):
        parameter.grad = torch.full_like(parameter, number)
    parameters[2].grad = torch.arange(30.0).view(5, 6).T.reshape(30)
    expected = [None if p.grad is None else 2 * p.grad for p in parameters]
    sizes = [[g.numel() for g in bucket] for bucket in parallel._buckets([p.grad for p in parameters[1:]])]
    assert sizes == [[4], [30], [1], [2]]
    parallel.Processes(0, 2).sum_gradients(parameters)
    assert parameters[0].grad is None
    assert all(torch.equal(p.grad, e) for p, e in zip(parameters[1:], expected[1:]))


@pytest.mark.parametrize(
    ("device", "said"), [("mps", "cannot share"), ("cuda:1", "its own"), ("cuda", "need 2")]
)
def test_devices_that_cannot_be_shared_are_refused(device, said, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ownlm.UsageError, match=said):
        launched.refuse_device(device, 2)
    launched.refuse_device(device, 1)
    assert parallel.Processes(1, 2).device("cuda") == "cuda:1"
    assert parallel.Processes().device("cuda") == "cuda"


def test_the_others_wait_for_the_first_to_speak_before_they_end(monkeypatch, capsys):
    """torchrun ends all as soon as one has ended: here its signal comes while a process lets the first go first."""
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none"}.items():
        monkeypatch.setenv(name, value)
    before, waited = signal.getsignal(signal.SIGTERM), []
    monkeypatch.setattr(
        cli.time, "sleep", lambda seconds: waited.append(seconds) or signal.raise_signal(signal.SIGTERM)
    )
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main(["pretrain", "--no-such-option"])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 2
    assert waited == [cli.LAST_WORDS_SECONDS]
    assert capsys.readouterr().err == ""


def test_the_first_speaks_although_torchrun_ends_it(monkeypatch):
    """torchrun sends its signal a tenth of a second after a process was killed; the first still waits for that one."""
    ended = []
    before = signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    monkeypatch.setattr(parallel.dist, "destroy_process_group", lambda: None)

    class Store:
        def check(self, _: object) -> bool:
            signal.raise_signal(signal.SIGTERM)
            return True

    try:
        parallel.Processes(0, 2, Store()).leave()
        assert ended == []
        signal.raise_signal(signal.SIGTERM)
        assert ended == [True]
    finally:
        signal.signal(signal.SIGTERM, before)
