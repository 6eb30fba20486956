"""`ownlm pull` makes a folder that can be carried."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ownlm
from ownlm import hub_fetch
from ownlm.cli import main
from ownlm.console.errors import Refused, UsageError
from tests.hub.conftest import NAME
from tests.hub.folders import FETCHED, WRITTEN, command, environment, names_below
from tests.hub.state import TOKEN

# ---- pull


def test_a_folder_that_can_be_carried(hub, run, model_files, tmp_path, offline):
    done = ownlm.pull(NAME, output=Path("model"))
    assert names_below(Path("model")) == WRITTEN
    for name in FETCHED:
        assert not (Path("model") / name).is_symlink()
        assert (Path("model") / name).read_bytes() == model_files[name]
    facts = json.loads(Path("model/ownlm.json").read_text())
    assert facts["repository"] == NAME and facts["licence"] == hub.repositories[NAME].licence
    assert facts["commit"] == done["commit"] == hub.repositories[NAME].refs["main"]
    assert not (tmp_path / "home" / "hub").exists()  # nothing twice on the disk
    shutil.move("model", tmp_path / "carried")
    offline.on()
    hub.requests.clear()
    options = {"max_new_tokens": 8, "seed": 5}
    assert ownlm.load(tmp_path / "carried").generate("The", **options) == ownlm.load(run).generate(
        "The", **options
    )
    assert hub.requests == []


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="this machine has no sha256sum")
def test_the_sums_are_those_of_sha256sum(hub):
    ownlm.pull(NAME, output=Path("model"))
    check = ["sha256sum", "-c", "SHA256SUMS"]
    done = subprocess.run(check, cwd="model", capture_output=True, text=True)
    assert done.returncode == 0
    assert {line.split(":")[0] for line in done.stdout.splitlines()} == WRITTEN - {"SHA256SUMS"}
    with open("model/model.safetensors", "r+b") as stream:
        stream.seek(1000)
        stream.write(b"damage")
    assert subprocess.run(check, cwd="model", capture_output=True).returncode == 1


def test_as_it_is_typed_with_the_environment(hub, tmp_path):
    """A process of its own: HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE are read from the environment."""
    hub.repositories[NAME].private = True
    done = command("pull", NAME, "--json", cwd=tmp_path, env=environment(hub, tmp_path, HF_TOKEN=TOKEN))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["model"] == "tiny" and names_below(tmp_path / "tiny") == WRITTEN
    assert (
        told["fetched_bytes"] == told["bytes"] == sum((tmp_path / "tiny" / n).stat().st_size for n in FETCHED)
    )
    assert "ownlm generate tiny" in done.stderr and "licence: apache-2.0" in done.stderr
    assert "\r" not in done.stderr and "\x1b" not in done.stderr  # no live line off a terminal
    count = len(hub.requests)
    done = command("pull", NAME, "-o", "x", cwd=tmp_path, env=environment(hub, tmp_path, HF_HUB_OFFLINE="1"))
    assert done.returncode == 2 and "HF_HUB_OFFLINE" in done.stderr and not (tmp_path / "x").exists()
    assert len(hub.requests) == count


def test_the_tokenizer_alone(hub, text_folder):
    ownlm.pull(NAME, output=Path("words"), tokenizer_only=True)
    texts = {"config.json", "tokenizer.json", "tokenizer_config.json"}
    assert names_below(Path("words")) == texts | {"ownlm.json", "SHA256SUMS"}
    with pytest.raises(UsageError, match="the tokenizer only"):
        ownlm.pull(NAME, output=Path("words"))


def test_what_was_cut_goes_on(hub, model_files, monkeypatch, capsys):
    hub.cut, hub.cuts = {"model.safetensors": 50_000}, 1
    monkeypatch.setattr(hub_fetch, "TRIES", 1)
    assert main(["pull", NAME, "-o", "model"]) == 1
    assert "goes on" in capsys.readouterr().err
    assert not Path("model/SHA256SUMS").exists() and not Path("model/model.safetensors").exists()
    newer = hub.add(NAME, {**model_files, "README.md": b"# newer\n"})  # meanwhile
    hub.requests.clear()
    done = ownlm.pull(NAME, output=Path("model"))
    assert done["commit"] != newer  # one state of the model, not a mixture of two
    assert [request.range for request in hub.asked("/cdn/")] == ["bytes=50000-"]
    assert not hub.asked("/README.md$")  # what was there is not fetched again
    assert Path("model/model.safetensors").read_bytes() == model_files["model.safetensors"]
    assert names_below(Path("model")) == WRITTEN


def test_a_process_that_is_interrupted(hub, model_files, tmp_path):
    """Ctrl-C in the middle of a file that comes slowly; the second process asks for the rest."""
    from tests.hub.server import Handler

    data = model_files["model.safetensors"]
    original = Handler._bytes

    def slowly(self, status, content, headers, name=""):
        if name != "model.safetensors" or "Range" in self.headers:
            return original(self, status, content, headers, name)
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:70_000])
        time.sleep(20)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Handler, "_bytes", slowly)
        words = [sys.executable, "-m", "ownlm", "pull", NAME, "-o", "model"]
        # A shell's background job ignores Ctrl-C, and so would its children.
        heard = signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen(
            words, cwd=tmp_path, env=environment(hub, tmp_path), stderr=subprocess.PIPE
        )
        signal.signal(signal.SIGINT, heard)
        parts = tmp_path / "model" / ".ownlm-pull"
        until = time.monotonic() + 15
        while time.monotonic() < until and not any(p.stat().st_size for p in parts.glob("*.part")):
            time.sleep(0.02)
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)
    assert process.returncode == 130 and b"again goes on" in said
    kept = next(parts.glob("*.part")).stat().st_size
    assert 0 < kept <= 70_000
    hub.requests.clear()
    ownlm.pull(NAME, output=tmp_path / "model")
    assert [request.range for request in hub.asked("/cdn/")] == [f"bytes={kept}-"]
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == data


def test_several_at_the_same_time(hub, model_files, tmp_path):
    """Each waits for the one before it, finds everything there, and ends well; also in the shared cache."""
    from concurrent.futures import ThreadPoolExecutor

    from ownlm.hub import local_folder

    with ThreadPoolExecutor(8) as pool:
        pulls = [pool.submit(ownlm.pull, NAME, output=tmp_path / "model") for _ in range(4)]
        folders = [pool.submit(local_folder, NAME) for _ in range(4)]
    assert sum(pull.result()["fetched_bytes"] for pull in pulls) <= sum(len(model_files[n]) for n in FETCHED)
    assert names_below(tmp_path / "model") == WRITTEN
    for folder in (tmp_path / "model", *(found.result() for found in folders)):
        assert all((folder / name).read_bytes() == model_files[name] for name in FETCHED)


def test_config_comes_last(hub, monkeypatch):
    """A folder in which something is missing is not a model yet."""
    fetched = hub_fetch.fetch_file

    def cut(listing, file, *rest):
        if file.name == "tokenizer_config.json":
            raise Refused("cut off", where=file.name)
        fetched(listing, file, *rest)

    monkeypatch.setattr(hub_fetch, "fetch_file", cut)
    with pytest.raises(Refused, match="cut off"):
        ownlm.pull(NAME, output=Path("model"))
    assert (Path("model") / "tokenizer.json").is_file() and not (Path("model") / "config.json").exists()


def test_again_fetches_nothing_and_mends_what_is_damaged(hub, model_files, capsys):
    ownlm.pull(NAME, output=Path("model"))
    before = Path("model/ownlm.json").read_bytes()
    hub.requests.clear()
    assert ownlm.pull(NAME, output=Path("model"))["fetched_bytes"] == 0
    assert [request.path for request in hub.requests] == [f"/api/models/{NAME}/revision/main"]
    Path("model/config.json").write_text("{}")
    done = ownlm.pull(NAME, output=Path("model"))
    assert done["fetched_bytes"] == len(model_files["config.json"])
    assert Path("model/config.json").read_bytes() == model_files["config.json"]
    assert "config.json has other bytes" in capsys.readouterr().err
    assert Path("model/ownlm.json").read_bytes() == before


def test_what_the_cache_has_is_copied(hub, model_files):
    from ownlm.loaded import resolve

    resolve(NAME)
    hub.requests.clear()
    assert ownlm.pull(NAME, output=Path("model"))["fetched_bytes"] == 0
    assert not hub.asked("/resolve/") and names_below(Path("model")) == WRITTEN
    assert not Path("model/model.safetensors").is_symlink()


def test_two_states_are_not_mixed(hub, model_files, capsys):
    ownlm.pull(NAME, output=Path("model"))
    hub.add(NAME, {**model_files, "README.md": b"# newer\n"})
    assert main(["pull", NAME, "-o", "model"]) == 3
    assert "Two states" in capsys.readouterr().err
    assert Path("model/README.md").read_bytes() == model_files["README.md"]


def test_folders_with_other_content_are_not_touched(hub, capsys):
    Path("mine").mkdir()
    Path("mine/letter.txt").write_text("dear")
    assert main(["pull", NAME, "-o", "mine"]) == 2
    assert "holds other files" in capsys.readouterr().err
    Path("file").write_text("x")
    assert main(["pull", NAME, "-o", "file"]) == 2
    assert names_below(Path("mine")) == {"letter.txt"} and hub.requests == []
    ownlm.pull(NAME, output=Path("model"))
    hub.add("tester/other", hub.repositories[NAME].commits[hub.repositories[NAME].refs["main"]])
    assert main(["pull", "tester/other", "-o", "model"]) == 2
    assert f"holds {NAME}@main" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["./x", "a/b/c", "a b", "last/", "../x"])
def test_what_is_no_name(hub, name, capsys):
    assert main(["pull", name]) == 2
    assert "not a name on the hub" in capsys.readouterr().err and hub.requests == []


def test_refusals_leave_no_folder(hub, model_files, capsys):
    hub.add("tester/bin", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    assert main(["pull", "tester/bin"]) == 3
    assert main(["pull", "tester/none"]) == 2
    assert main(["pull", f"{NAME}@v9"]) == 2
    said = capsys.readouterr().err
    assert "pickled" in said and "no model of this name" in said and "no revision 'v9'" in said
    assert list(Path().iterdir()) == []


def test_damaged_in_transit(hub, model_files):
    hub.replaced = {"model.safetensors": model_files["model.safetensors"][:-1] + b"\xff"}
    with pytest.raises(Refused, match="other bytes"):
        ownlm.pull(NAME, output=Path("model"))
    assert not Path("model/model.safetensors").exists() and not Path("model/SHA256SUMS").exists()
    hub.replaced = {}
    ownlm.pull(NAME, output=Path("model"))
    assert Path("model/model.safetensors").read_bytes() == model_files["model.safetensors"]
