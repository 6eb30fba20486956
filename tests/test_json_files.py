"""JSON files from anywhere: an object, or a refusal that names the file."""

from __future__ import annotations

import json

import pytest

from ownlm.console.errors import Refused
from ownlm.export.card import write_card
from ownlm.json_files import read_object
from ownlm.loaded import read_run as run_of_a_model
from ownlm.training.run_folder import read_run


def test_an_object_comes_back(tmp_path):
    content = {"taught": ["continues text"], "Fluß": 1.5}
    (tmp_path / "run.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    assert read_object(tmp_path / "run.json") == read_run(tmp_path) == run_of_a_model(tmp_path) == content


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"{", "not valid JSON"),
        (b'{"a": "\xff"}', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[1, 2]", "not a JSON object"),
        (b'{"a": 1}' + b" " * 2**20, "larger than 1 MiB"),
    ],
)
def test_anything_else_is_refused_with_the_name_of_the_file(tmp_path, data, what):
    file = tmp_path / "config.json"
    file.write_bytes(data)
    with pytest.raises(Refused, match=what) as refused:
        read_object(file, 2**20)
    assert refused.value.where == file


def test_a_run_json_that_is_a_list_is_refused_by_all_who_read_it(tmp_path):
    (tmp_path / "run.json").write_text("[]", encoding="utf-8")
    done = {"tensors": 1, "bytes": 4, "dtype": None}
    for read in (read_run, run_of_a_model, lambda folder: write_card(folder, tmp_path, "run", done)):
        with pytest.raises(Refused, match="not a JSON object"):
            read(tmp_path)
