"""Other people's clients, unchanged, each as a program of its own.

`OWNLM_CLIENT_PYTHONS` names further Pythons (separated by colons), whose packages may have other versions.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ownlm
from tests.server.live import CHAT, live

pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]

FOLDER = Path(__file__).parent / "clients"
PYTHONS = [sys.executable, *filter(None, os.environ.get("OWNLM_CLIENT_PYTHONS", "").split(":"))]


def has(python: str, package: str) -> bool:
    return subprocess.run([python, "-c", f"import {package}"], capture_output=True).returncode == 0


def with_package(package: str) -> list[str]:
    """The Pythons that have a package; the test is skipped, with its reason, where none has it."""
    found = [python for python in PYTHONS if has(python, package)]
    if not found:
        pytest.skip(f"no {package} here (pip install 'ownlm[clients]', or OWNLM_CLIENT_PYTHONS)")
    return found


def ran(words: list[str], cwd: Path) -> str:
    env = {k: v for k, v in os.environ.items() if k not in ("OPENAI_BASE_URL", "PYTHONPATH")}
    env |= {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "OPENAI_API_KEY": "none",
        "TOKENIZERS_PARALLELISM": "false",
    }
    env |= {"HF_HOME": str(cwd / "hf"), "LANGSMITH_TRACING": "false"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, cwd=cwd, env=env)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("program", ["openai_client", "langchain_client"])
def test_a_client(server, tmp_path, program):
    for python in with_package({"openai_client": "openai", "langchain_client": "langchain_openai"}[program]):
        assert "fine" in ran([python, str(FOLDER / f"{program}.py"), server.url + "/v1"], tmp_path)


def test_curl(server, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("no curl here")
    kind = ["-H", "Content-Type: application/json"]
    url = server.url + "/v1/completions"
    found = json.loads(ran(["curl", "-s", url, *kind, "-d", '{"prompt": "The", "max_tokens": 2}'], tmp_path))
    assert found["choices"]
    stream = ran(
        ["curl", "-sN", url, *kind, "-d", '{"prompt": "The", "max_tokens": 2, "stream": true}'], tmp_path
    )
    assert stream.endswith("data: [DONE]\n\n")
    assert (
        json.loads(ran(["curl", "-s", url, "-d", "{}"], tmp_path))["error"]["code"]
        == "unsupported_media_type"
    )
    large = tmp_path / "large.json"
    large.write_text('{"prompt": "' + "x" * 9_000_000 + '"}')
    refused = ran(["curl", "-s", url, *kind, "-d", f"@{large}"], tmp_path)
    assert json.loads(refused)["error"]["code"] == "request_too_large"


# ---- lm-eval

CHOICES = """task: tiny_choices
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{label}}}}"
doc_to_choice: "{{{{choices}}}}"
target_delimiter: " "
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
WRITTEN = """task: tiny_written
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "Q: {{{{question}}}}"
doc_to_target: "{{{{choices[label]}}}}"
generation_kwargs: {{until: ["。", "home"], max_gen_toks: 16, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""
ROWS = [
    {"question": "The quick", "choices": ["fox runs", "river"], "label": 0},
    {"question": "春眠不觉晓，", "choices": ["处处闻啼鸟", "fox"], "label": 0},
    {"question": "A cold river jumps to the", "choices": ["sea", "🦊 hen"], "label": 1},
    {"question": "", "choices": ["The", "春"], "label": 1},
]


def lm_eval(
    python: str, tmp_path: Path, model: str, arguments: str, tasks: str, *words: str
) -> dict[str, list[dict]]:
    """Samples by task, as lm-eval logged them."""
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n", encoding="utf-8")
    for name, text in (("choices", CHOICES), ("written", WRITTEN)):
        (tmp_path / f"{name}.yaml").write_text(text.format(file=data), encoding="utf-8")
    command = [python, "-m", "lm_eval", "--model", model, "--model_args", arguments, "--tasks", tasks]
    command += [
        "--include_path",
        str(tmp_path),
        "--log_samples",
        "--output_path",
        str(tmp_path / "out"),
        *words,
    ]
    ran(command, tmp_path)
    found = {}
    for file in (tmp_path / "out").rglob("samples_*.jsonl"):
        task = next(name for name in ("tiny_choices", "tiny_written") if name in file.name)
        found[task] = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return found


def in_process(folder: Path, context: str, continuation: str) -> tuple[float, bool]:
    """Log-likelihood and whether it is what the model would write: lm-eval's own sums over the engine's scores."""
    model = ownlm.load(folder)
    whole = model.tokenizer.encode(context + continuation).tolist()
    before = model.tokenizer.encode(context).tolist() if context else []
    if not context:
        before, whole = [model.tokenizer.eos_id], [model.tokenizer.eos_id, *whole]
    scores = model.engine.score([whole], top=1)[0]
    start = len(before) - 1
    greedy = scores.logprobs[start:] == scores.top_logprobs[start:, 0]
    return sum(scores.logprobs[start:].tolist()), bool(greedy.all())


@pytest.mark.parametrize("tokenizer", ["huggingface", "remote"])
def test_lm_eval_measures_what_scoring_in_process_does(model_folder, tmp_path, tokenizer):
    python = with_package("lm_eval")[0]
    if tokenizer == "huggingface" and not has(python, "transformers"):
        pytest.skip("lm-eval's own tokenizer needs transformers")
    with live(model_folder, chat_template=None) as server:
        arguments = f"model=run,base_url={server.url}/v1/completions,max_length=128,num_concurrent=3"
        arguments += f",tokenizer_backend={tokenizer},tokenizer={model_folder}"
        tasks = "tiny_choices,tiny_written"
        samples = lm_eval(python, tmp_path, "local-completions", arguments, tasks, "--batch_size", "2")
        assert len(samples["tiny_choices"]) == len(ROWS)
        for sample in samples["tiny_choices"]:
            for asked, (value, greedy) in zip(sample["arguments"].values(), sample["filtered_resps"]):
                alone = in_process(model_folder, asked["arg_0"], asked["arg_1"])
                assert (float(value), str(greedy)) == (alone[0], str(alone[1])), asked
        own = ownlm.load(model_folder)
        for sample in samples["tiny_written"]:
            context = sample["arguments"]["gen_args_0"]["arg_0"]
            ids = own.tokenizer.encode(context).tolist()
            whole = server.ok(
                "/v1/completions", prompt=ids, temperature=0, max_tokens=16, stop=["。", "home"], seed=1234
            )
            assert sample["resps"][0][0] == whole["choices"][0]["text"]


def test_lm_eval_with_conversations(server, tmp_path):
    python = with_package("lm_eval")[0]
    arguments = f"model=run,base_url={server.url}/v1/chat/completions,num_concurrent=2"
    samples = lm_eval(
        python, tmp_path, "local-chat-completions", arguments, "tiny_written", "--apply_chat_template"
    )
    for row, sample in zip(ROWS, samples["tiny_written"]):
        messages = [CHAT[0] | {"content": "Q: " + row["question"]}]
        own = server.ok(
            "/v1/chat/completions", messages=messages, temperature=0, max_tokens=16, stop=["。", "home"]
        )
        assert sample["resps"][0][0] == own["choices"][0]["message"]["content"]


def test_schemathesis(server, tmp_path):
    """Requests made from the OpenAPI document: no 5xx, and every answer is one that the document knows."""
    python = with_package("schemathesis")[0]
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    program = "import sys; from schemathesis.cli import schemathesis; sys.exit(schemathesis())"
    words = ["-c", program, "run", f"{server.url}/openapi.json", "--checks", checks, "--max-examples", "50"]
    words += ["--generation-deterministic", "--no-color", "--phases", "examples,coverage,fuzzing"]
    ran([python, *words], tmp_path)
    assert server.client.get("/health").status_code == 200
