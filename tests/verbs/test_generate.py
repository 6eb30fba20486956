"""`generate` as it is typed: what stands on standard output, where prompts come from, and what ends a text."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys

import pytest
import torch

import ownlm
from ownlm.cli import main


@pytest.fixture(scope="module")
def model(run):
    return ownlm.load(run)


@pytest.fixture
def typed(run, capsys, monkeypatch):
    """Types `ownlm generate RUN …`; gives (exit code, standard output, standard error)."""

    def generate(*words, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        code = main(["generate", str(run), *map(str, words)])
        return (code, *capsys.readouterr())

    return generate


def test_standard_output_holds_prompt_and_completion_and_nothing_else(typed, model):
    expected = model.complete("The quick", max_new_tokens=8, seed=3)[0].text
    assert expected
    options = ["--max-new-tokens", 8, "--seed", 3]
    assert typed("The quick", *options)[:2] == (0, "The quick" + expected + "\n")
    assert typed("The quick", *options, "--completion-only")[:2] == (0, expected + "\n")
    code, shown, said = typed("The quick", *options, "-q")
    assert (code, shown, said) == (0, "The quick" + expected + "\n", "")


def test_prompts_come_from_arguments_files_and_standard_input(typed, tmp_path):
    file = tmp_path / "a prompt.txt"
    file.write_text("A river\n春", encoding="utf-8")
    options = ["--max-new-tokens", 6, "--seed", 5]
    plain = typed("A river\n春", *options)[1]
    assert plain.startswith("A river\n春")
    assert typed(f"@{file}", *options)[1] == plain
    assert typed("-", *options, stdin="A river\n春".encode())[1] == plain
    assert typed(*options, stdin="A river\n春\n".encode())[1] == plain  # echo's line end is not part of it
    begun = typed("", *options)[1]
    assert begun == typed(*options, stdin=b"")[1]
    assert begun != plain


def test_input_that_cannot_be_a_prompt(typed, tmp_path):
    assert typed("@nowhere.txt")[0] == 2
    code, shown, said = typed(stdin=b"ab\xff")
    assert (code, shown) == (3, "")
    assert "byte 2 is not UTF-8" in said


def test_temperature_0_takes_the_most_probable_token_of_the_full_forward_pass(typed, run, model):
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(run, dtype=torch.float32)
    ids = [model.tokenizer.eos_id, *model.tokenizer.encode("3: The fox").tolist()]
    start = len(ids)
    with torch.no_grad():
        for _ in range(12):
            ids.append(int(theirs(torch.tensor([ids])).logits[0, -1].argmax()))
    expected = model.tokenizer.decode(ids[start:]).rstrip("\ufffd")
    options = ["--temperature", 0, "--max-new-tokens", 12, "--dtype", "float32", "--completion-only"]
    code, shown, said = typed("3: The fox", *options)
    assert (code, shown) == (0, expected + "\n")
    assert "same text again" not in said  # nothing was drawn


def test_the_command_with_the_drawn_seed_gives_the_same_text(typed, capsys):
    options = [
        "--temperature",
        1.3,
        "--top-k",
        50,
        "--repetition-penalty",
        1.2,
        "--stop",
        " ~ ",
        "--max-new-tokens",
        9,
    ]
    _, first, said = typed("The lazy", *options, "--num-return-sequences", 2)
    again = next(line for line in said.splitlines() if "The same text again: " in line).partition(": ")[2]
    words = shlex.split(again)
    assert words[:2] == ["ownlm", "generate"]
    assert main(words[1:]) == 0
    assert capsys.readouterr().out == first
    others = {typed("The lazy", *options, "--num-return-sequences", 2)[1] for _ in range(3)}
    assert others - {first}, "another seed is drawn every time"


def test_a_stop_string_is_neither_printed_nor_passed(typed):
    options = ["--temperature", 0, "--max-new-tokens", 20]
    whole = typed("3: The quick", *options, "--completion-only")[1].removesuffix("\n")
    assert len(whole) > 20
    for stop in (whole[6:7], whole[5:12], whole[-3:]):  # inside words, over the borders of tokens
        code, shown, said = typed("3: The quick", *options, "--completion-only", "--stop", stop)
        assert (code, shown) == (0, whole[: whole.find(stop)] + "\n"), stop
        assert f"{stop!r} appeared" in said
    two = typed("3: The quick", *options, "--completion-only", "--stop", whole[9:14], "--stop", whole[4:8])[1]
    assert two == whole[: min(whole.find(whole[9:14]), whole.find(whole[4:8]))] + "\n"
    assert typed("x", "--stop", "")[0] == 2


def test_a_stop_character_that_is_several_tokens(typed, model):
    found = 0
    for seed in range(30):
        whole = model.complete("春", max_new_tokens=20, seed=seed)[0].text
        split = [c for c in whole if c != "\ufffd" and len(model.tokenizer.encode(c)) > 1]
        if split:
            found += 1
            options = ["--max-new-tokens", 20, "--seed", seed, "--completion-only", "--stop", split[0]]
            assert typed("春", *options)[1] == whole[: whole.find(split[0])] + "\n"
    assert found, "no character of several tokens was written: the test shows nothing"


def numbers(shown):
    return [
        (c["prompt_tokens"], c["new_tokens"], c["finish_reason"]) for c in json.loads(shown)["completions"]
    ]


def test_max_length_counts_the_prompt_and_max_new_tokens_does_not(typed, model):
    size = len(model.tokenizer.encode("3: The quick brown"))
    options = ["3: The quick brown", "--json", "--seed", 1]
    for length in (size + 1, size + 7):
        assert numbers(typed(*options, "--max-length", length)[1]) == [(size, length - size, "length")]
    assert numbers(typed(*options, "--max-new-tokens", 7)[1]) == [(size, 7, "length")]
    code, shown, said = typed("3: The quick brown", "--max-length", size)
    assert (code, shown) == (2, "")
    assert "--max-length" in said and f"{size} tokens already" in said
    assert typed("x", "--max-length", 9, "--max-new-tokens", 9)[0] == 2


def test_the_window_ends_a_text_and_that_is_said(typed, model):
    code, shown, said = typed("The fox", "--max-new-tokens", 500, "--json", "--seed", 2, "--stop", "~~")
    assert code == 0
    ((prompt, new, reason),) = numbers(shown)
    assert reason == "length"
    assert 1 + prompt + new == model.context
    assert f"holds {model.context} tokens: the text ends there, not at 500" in said
    assert f"window of {model.context} tokens is full" in said


def test_a_prompt_that_fills_the_window_is_refused_before_anything_is_printed(typed, model):
    code, shown, said = typed("fox " * 60)
    assert (code, shown) == (3, "")
    assert f"holds {model.context}" in said
    longest = model.context - 2
    assert f"at most {longest} tokens" in said
    fits = model.tokenizer.decode(model.tokenizer.encode("fox " * 60)[:longest])
    assert len(model.tokenizer.encode(fits)) == longest
    assert typed(fits, "--seed", 1)[0] == 0


def test_several_texts_are_printed_one_after_another(typed, model):
    options = ["--max-new-tokens", 6, "--seed", 9]
    found = model.complete(["The fox", "Rain"], max_new_tokens=6, seed=9, num_return_sequences=2)
    assert [(c.prompt, c.index) for c in found] == [("The fox", 0), ("The fox", 1), ("Rain", 0), ("Rain", 1)]
    assert found[0].text != found[1].text
    expected = "".join(c.prompt + c.text + "\n\n" for c in found)
    assert typed("The fox", "Rain", *options, "--num-return-sequences", 2)[:2] == (0, expected)
    code, _, said = typed("The fox", "--num-return-sequences", 0)
    assert code == 2 and "--num-return-sequences" in said


def test_json_says_what_was_asked_and_what_came(typed, model, run):
    code, shown, _ = typed("The fox", "--max-new-tokens", 6, "--json", "--top-p", 0.9)
    content = json.loads(shown)
    assert code == 0
    assert content["model"] == str(run)
    assert content["settings"]["top_p"] == 0.9
    again = model.complete("The fox", max_new_tokens=6, top_p=0.9, seed=content["seed"])[0]
    assert content["completions"] == [again.as_dict()]


def test_options_that_change_nothing_are_said(typed):
    greedy = ["The fox", "--temperature", 0, "--max-new-tokens", 3]
    assert "--seed changes nothing" in typed(*greedy, "--seed", 1)[2]
    assert "changes nothing" not in typed(*greedy)[2]
    assert "--completion-only changes nothing" in typed(*greedy, "--json", "--completion-only")[2]
    for option in (["--top-k", 5], ["--top-p", 0.5], ["--min-p", 0.1], ["--num-return-sequences", 2]):
        code, shown, said = typed(*greedy, *option)
        assert (code, shown) == (2, ""), option
        assert "would change nothing" in said


def test_a_reader_that_goes_away_is_no_error(run):
    command = [sys.executable, "-m", "ownlm", "generate", str(run), "The fox", "--max-new-tokens", "20"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(timeout=60) == 0, said
    assert "Error" not in said and "Traceback" not in said


def test_unfinished_characters_are_held_back_and_counted(typed):
    """Drawn at a high temperature, bytes end anywhere; what is shown is text all the same."""
    counted = 0
    for seed in range(12):
        _, shown, said = typed("春", "--temperature", 1.5, "--max-new-tokens", 4, "--seed", seed, "--json")
        (completion,) = json.loads(shown)["completions"]
        assert not completion["text"].encode().endswith(b"\xe6")
        if completion["bytes_dropped"]:
            counted += 1
            assert f"{completion['bytes_dropped']} bytes of an unfinished character" in said
    assert counted, "no seed ended inside a character: the test shows nothing"


def test_dtype_is_the_arithmetic(typed):
    """Products in bf16 have three digits; a processor without them is told so, or computes what is stored."""
    found = {}
    for dtype in ("float32", "bfloat16", "auto"):
        code, shown, said = typed(
            "The", "--temperature", 0, "--max-new-tokens", 1, "--json", "--dtype", dtype
        )
        found[dtype] = json.loads(shown)["completions"][0]["logprob"] if code == 0 else said
    assert found["auto"] == found["float32"]  # what is stored
    assert found["bfloat16"] != found["float32"]
    if isinstance(found["bfloat16"], float):
        assert found["bfloat16"] == pytest.approx(found["float32"], abs=0.1)
    else:
        assert "bf16" in found["bfloat16"]


SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "n": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["ok", "n"],
    "additionalProperties": False,
}


def test_json_by_a_schema(typed, tmp_path):
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(SCHEMA), encoding="utf-8")
    options = ["--completion-only", "--temperature", 1.5]
    answers = []
    for seed in range(4):
        code, shown, said = typed("A", "--schema", file, *options, "--seed", seed)
        found = json.loads(shown)
        assert code == 0 and "cut" not in said
        assert found == {"ok": bool(found["ok"]), "n": int(found["n"])} and 0 <= found["n"] <= 99
        answers.append(shown)
    assert len(set(answers)) > 1
    assert typed("A", "--schema", json.dumps(SCHEMA), *options, "--seed", 3)[1] == answers[3]
    code, shown, said = typed("A", "--schema", file, "--max-new-tokens", 4)
    assert code == 0 and "1 of 1 answers were cut before their form was complete" in said


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ('{"type": "array", "contains": {}}', '"contains" is not supported'),
        ('{"properties": {"a": {"minLenght": 2}}}', 'Did you mean "minLength"'),
        ('{"type": "wrong"}', "Invalid type"),
        ("{broken", "not JSON"),
        ("nowhere.json", "no such file"),
    ],
)
def test_a_schema_that_cannot_be_followed_is_refused(typed, schema, says):
    code, shown, said = typed("The quick", "--schema", schema)
    assert (code, shown) == (2, "")
    assert says in said


def test_one_of_several_texts(typed, model):
    options = ["--completion-only", "--temperature", 1.5, "--max-new-tokens", 30]
    found = {typed("The quick", "--choices", "yes,no,maybe so", *options, "--seed", i)[1] for i in range(8)}
    assert found <= {"yes\n", "no\n", "maybe so\n"}
    assert len(found) > 1
    assert typed("A", "--choices", "a,b", "--choices", "春", *options, "--seed", 1)[1] in ("a,b\n", "春\n")
    both = typed("A", "--choices", "a,b", "--schema", "{}")
    assert both[0] == 2 and "only one of them" in both[2]
    texts = model.generate("The quick", choices=["红", "蓝"], num_return_sequences=4, completion_only=True)
    assert set(texts) <= {"红", "蓝"}


def test_a_text_of_a_regular_expression(typed, model):
    options = ["--completion-only", "--temperature", 1.5, "--max-new-tokens", 30]
    found = {typed("It is", "--regex", "[0-9]{2}年|a/b", *options, "--seed", i)[1] for i in range(8)}
    assert all(re.fullmatch("([0-9]{2}年|a/b)\n", text) for text in found)
    assert len(found) > 1
    cut = typed("A", "--regex", "x{50}", "--max-new-tokens", 2)
    assert cut[0] == 0 and "1 of 1 answers were cut before their form" in cut[2]
    for wrong, says in (("(", "unclosed group"), ("(?=a)a", "look-around"), ("", "empty")):
        code, shown, said = typed("A", "--regex", wrong)
        assert (code, shown) == (2, "") and "--regex: " in said and says in said
    both = typed("A", "--choices", "a,b", "--regex", "a")
    assert both[0] == 2 and "--regex: set together with --choices" in both[2]
    assert model.generate("It is", regex="春{3}", completion_only=True) == "春春春"


def test_the_model_cannot_end_a_text_before_min_new_tokens(model):
    for seed in range(30):
        short = model.complete("The", seed=seed, max_new_tokens=30, temperature=2.0)[0]
        if short.finish_reason == "stop":
            longer = model.complete("The", seed=seed, max_new_tokens=30, temperature=2.0, min_new_tokens=30)[
                0
            ]
            assert longer.new_tokens == 30
            break
    else:
        pytest.fail("no text ended by itself")
