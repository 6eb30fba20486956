"""Names become folders: from the disk, from the cache, from the hub; what must not be fetched is not."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from ownlm import hub_fetch, hub_listing
from ownlm.cli import main
from ownlm.console.errors import OwnlmError, UsageError
from ownlm.hub import hub_name, local_folder
from ownlm.loaded import load, resolve
from tests.hub.conftest import NAME, use
from tests.hub.folders import FETCHED, names
from tests.hub.server import closed_port, silent_port

# ---- what a name means


@pytest.mark.parametrize(
    ("text", "repository", "revision"),
    [
        ("gpt2", "gpt2", "main"),
        ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B", "main"),
        ("gpt2@v1.0", "gpt2", "v1.0"),
        ("o/n@refs/pr/1", "o/n", "refs/pr/1"),
    ],
)
def test_names_of_the_hub(text, repository, revision, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hub_name(text) == (repository, revision)


@pytest.mark.parametrize(
    "text",
    ["./x", "../x/y", "/x/y", "~/x", "a/b/c", "x/", "runs/mine", "模型", "a b", "run.json", "x\\y", "a..b/c",
     "a/b@../../c", "C:/x", "", "weights.bin", "o/n@"],
)  # fmt: skip
def test_what_can_only_be_local(text, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert hub_name(text) is None


def test_what_exists_here_wins(hub, run):
    shutil.copytree(run, "gpt2")
    shutil.copytree(run, NAME)
    assert resolve("gpt2") == Path("gpt2")
    assert resolve(NAME) == Path(NAME) and local_folder(NAME) == Path(NAME)
    assert hub.requests == []


def test_a_misspelt_run_gets_both_answers(hub, run, capsys):
    shutil.copytree(run, "poetry")
    assert main(["generate", "poetri", "The"]) == 2
    said = capsys.readouterr().err
    assert 'Did you mean "poetry"?' in said and f"{hub.endpoint} has no model of this name" in said
    assert "ownlm runs" in said
    before = len(hub.requests)
    assert main(["generate", "./poetri", "The"]) == 2
    assert 'Did you mean "poetry"?' in capsys.readouterr().err
    assert len(hub.requests) == before


# ---- fetching


def test_a_fetched_model_writes_like_the_run(hub, run, model_files):
    folder = resolve(NAME)
    assert names(folder) == FETCHED
    assert all((folder / name).read_bytes() == model_files[name] for name in FETCHED)
    options = {"max_new_tokens": 12, "seed": 3}
    assert load(NAME).generate("The river", **options) == load(run).generate("The river", **options)


def test_other_tools_find_it_in_the_cache_and_we_find_theirs(hub, model_files, tmp_path, monkeypatch):
    """huggingface_hub beside ours: the layout is the same both ways."""
    from huggingface_hub import constants, snapshot_download

    folder = resolve(NAME)
    assert Path(snapshot_download(NAME, local_files_only=True)) == folder
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "second"))
    theirs = Path(snapshot_download(NAME))
    hub.requests.clear()
    assert resolve(NAME) == theirs
    assert [request.path for request in hub.requests] == [f"/api/models/{NAME}/revision/main"]


def test_the_second_time_asks_once_and_fetches_nothing(hub):
    resolve(NAME)
    hub.requests.clear()
    resolve(NAME)
    assert [request.path for request in hub.requests] == [f"/api/models/{NAME}/revision/main"]


def test_a_name_without_an_owner(hub):
    hub.aliases["gpt2"] = NAME
    assert names(resolve("gpt2")) == FETCHED


def test_revisions(hub, model_files):
    other = {**model_files, "README.md": b"# the second\n"}
    first, second = hub.add(NAME, model_files, "v1"), hub.add(NAME, other, "main")
    assert (resolve(NAME) / "README.md").read_bytes() == b"# the second\n"
    assert (resolve(f"{NAME}@v1") / "README.md").read_bytes() == model_files["README.md"]
    hub.requests.clear()
    assert resolve(f"{NAME}@{first}").name == first and resolve(f"{NAME}@{second}").name == second
    assert hub.requests == []  # a commit in the cache never changes
    with pytest.raises(UsageError, match="no revision 'v7'"):
        resolve(f"{NAME}@v7")


def test_the_tokenizer_alone(hub):
    folder = local_folder(NAME, tokenizer_only=True)
    assert names(folder) == {"config.json", "tokenizer.json", "tokenizer_config.json"}
    assert not hub.asked("safetensors")
    assert names(resolve(NAME)) == FETCHED  # half a snapshot is not taken for a whole one


def test_of_shards_and_copies_one_set_is_fetched(hub, model_files):
    data = {
        "model-00001-of-00002.safetensors": b"1",
        "model-00002-of-00002.safetensors": b"2",
        "model.safetensors.index.json": b"{}",
        "consolidated.safetensors": b"12",
        "model.fp16.safetensors": b"h",
    }
    hub.add("tester/shards", {"config.json": b"{}", **data})
    expected = {"config.json", *list(data)[:3]}
    assert names(local_folder("tester/shards")) == expected


# ---- connections that end


def test_a_cut_connection_is_taken_up_in_the_same_run(hub, model_files):
    hub.cut, hub.cuts = {"model.safetensors": 50_000}, 2
    data = model_files["model.safetensors"]
    assert (resolve(NAME) / "model.safetensors").read_bytes() == data
    assert [request.range for request in hub.asked("/cdn/")] == [None, "bytes=50000-", "bytes=100000-"]


def test_a_later_run_goes_on_where_the_first_ended(hub, model_files, tmp_path, monkeypatch, capsys):
    hub.cut, hub.cuts = {"model.safetensors": 50_000}, 1
    monkeypatch.setattr(hub_fetch, "TRIES", 1)
    assert main(["generate", NAME, "The"]) == 1
    said = capsys.readouterr().err
    assert "50.0 kB of" in said and "goes on" in said
    assert not any((tmp_path / "home").rglob("snapshots"))  # half a model is never a model
    hub.requests.clear()
    assert (resolve(NAME) / "model.safetensors").read_bytes() == model_files["model.safetensors"]
    assert [request.range for request in hub.asked("/cdn/")] == ["bytes=50000-"]
    assert not hub.asked("/config.json$") and hub.asked("/tokenizer.json$")  # the first one was whole already
    assert not list((tmp_path / "home").rglob("*.part"))


def test_a_server_without_ranges_sends_everything_again(hub, model_files):
    hub.cut, hub.cuts, hub.ranges = {"model.safetensors": 50_000}, 1, False
    assert (resolve(NAME) / "model.safetensors").read_bytes() == model_files["model.safetensors"]


def test_a_file_that_always_breaks_at_once_ends(hub):
    hub.cut = {"model.safetensors": 0}
    with pytest.raises(OwnlmError, match="the connection ended"):
        resolve(NAME)
    assert len(hub.asked("/cdn/")) == hub_fetch.TRIES


# ---- without a network


def test_offline_with_a_copy_asks_nothing(hub, offline):
    online = resolve(NAME)
    hub.requests.clear()
    offline.on()
    assert resolve(NAME) == online
    assert load(NAME).generate("The", max_new_tokens=3, seed=1).startswith("The")
    assert hub.requests == []


def test_offline_without_a_copy_asks_nothing_either(hub, offline, capsys):
    local_folder(NAME, tokenizer_only=True)
    hub.requests.clear()
    offline.on()
    assert main(["generate", NAME, "The"]) == 2
    said = capsys.readouterr().err
    assert "HF_HUB_OFFLINE" in said and f"ownlm pull {NAME} -o DIR" in said and "no such run folder" in said
    assert hub.requests == []


@pytest.mark.parametrize("kind", ["closed", "silent"])
def test_a_hub_that_does_not_answer(kind, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(hub_listing, "ANSWER_SECONDS", hub_listing.ANSWER_SECONDS / 4)
    with silent_port() as silent:
        endpoint = silent if kind == "silent" else closed_port()
        use(monkeypatch, endpoint, tmp_path)
        monkeypatch.chdir(tmp_path)
        start = time.monotonic()
        assert main(["generate", NAME, "The"]) == 1
        # A quarter of the limit is allowed here; the whole limit leaves time for the start of Python.
        assert time.monotonic() - start < 5 / 4 + 0.5 and hub_listing.ANSWER_SECONDS * 4 <= 4
    said = capsys.readouterr().err
    assert endpoint in said and "HF_ENDPOINT" in said
    assert f"ownlm pull {NAME} -o DIR" in said and "DIR in place of" in said


def test_an_unreachable_hub_and_a_copy_in_the_cache(hub, monkeypatch, tmp_path, capsys):
    online = resolve(NAME)
    use(monkeypatch, closed_port(), tmp_path / "home")
    assert resolve(NAME) == online
    said = capsys.readouterr().err
    assert "cannot be reached" in said and online.name[:12] in said


def test_a_search_for_an_address_that_hangs_is_left_behind(monkeypatch, tmp_path):
    import socket

    use(monkeypatch, "http://no-such-hub.invalid", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub_listing, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(3) or [])
    start = time.monotonic()
    with pytest.raises(OwnlmError, match="no answer within"):
        resolve(NAME)
    assert time.monotonic() - start < 1.5


def test_a_hub_that_is_down_is_said_at_once(hub):
    hub.status = [("/api/", 503, {})]
    with pytest.raises(OwnlmError, match="answered 503") as error:
        resolve(NAME)
    assert error.value.exit_code == 1 and len(hub.requests) == 1
