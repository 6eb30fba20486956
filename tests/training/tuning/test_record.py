"""What a fine-tuned run says about itself is documented."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.docs.test_docs import documented, keys

import ownlm

MADE: dict[str, list[dict[str, Any]]] = {
    "lora": [{"instruction": f"Say {n}.", "output": f"{n} is said"} for n in range(30)],
    "head": [{"text": f"a day {n}", "label": "good" if n % 2 else "bad"} for n in range(30)],
}


@pytest.mark.parametrize("way", ["lora", "head"])
def test_every_field_and_file_is_documented(talker: Path, tmp_path: Path, way: str) -> None:
    data, run = tmp_path / "rows.jsonl", tmp_path / "r"
    data.write_text("".join(json.dumps(row) + "\n" for row in MADE[way]), encoding="utf-8")
    ownlm.finetune(
        str(talker), [str(data)], output=run, lora=way == "lora", max_steps=1, eval_rows=3, threads=1,
        dtype="float32",
    )  # fmt: skip
    words = documented("run-folder.md")
    content = json.loads((run / "run.json").read_text(encoding="utf-8"))
    # Figures have the names of the task, reasons those of `ownlm data check`.
    assert set(keys(content, below=("settings", "scores", "left_out"))) - words == set()
    for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines():
        assert set(json.loads(line)) <= words
    files = {path.name for path in [*run.iterdir(), *next((run / "checkpoints").iterdir()).iterdir()]}
    assert files - words == set()
