"""From rows to windows: what is held out, what is learnt, what happens to long rows, what shares a window."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ownlm.console.errors import Refused, UsageError
from ownlm.corpus.batches import NOT_TRAINED
from ownlm.corpus.tokenizer import Tokenizer
from ownlm.tasks.dataset import read_dataset
from ownlm.tasks.items import Chat, Pair
from ownlm.tasks.measure import Reader
from ownlm.tasks.problems import Problems
from ownlm.tasks.render import render_chat
from ownlm.tasks.templates import find_template
from ownlm.training.tuning.measuring import sample_of
from ownlm.training.tuning.packed import Packed, fitted
from ownlm.training.tuning.split import divided, on_both_sides, refuse_overlap
from ownlm.training.tuning.texts import Text, texts_of


@pytest.fixture(scope="module")
def tokenizer(corpus: Path) -> Tokenizer:
    return Tokenizer.load(corpus)


def pairs(*lengths: int) -> list[Pair]:
    return [Pair(f"rows.jsonl:{n + 1}", "fox " * length, "dog") for n, length in enumerate(lengths)]


def read(items, tokenizer, max_length=64, overlong="error", train_on="answers"):
    problems = Problems()
    reader = Reader("model", tokenizer, None, max_length)
    found = texts_of(
        items, "completion", reader, problems, max_length=max_length, overlong=overlong, train_on=train_on
    )
    return (*found, problems)


def test_the_answer_and_its_end_are_learnt_and_nothing_else(tokenizer):
    [text], _, _, _ = read([Pair("a:1", "The fox", " runs home.")], tokenizer)
    learnt = text.trained.tolist()
    assert learnt[-1] == tokenizer.eos_id
    assert tokenizer.decode(learnt[:-1]) == " runs home."
    assert tokenizer.decode(text.ids[text.ids != tokenizer.eos_id].tolist()) == "The fox runs home."
    whole, _, _, _ = read([Pair("a:1", "The fox", " runs home.")], tokenizer, train_on="all")
    assert len(whole[0].trained) == len(whole[0].ids)


def test_targets_follow_what_is_read(tokenizer):
    [text], _, _, _ = read([Pair("a:1", "The fox", " runs home.")], tokenizer, train_on="all")
    assert text.ids[1:].tolist() == text.targets[:-1].tolist()


def test_long_rows_are_refused_with_their_number_and_lengths(tokenizer):
    with pytest.raises(Refused, match=r"2 of 3 rows are longer than 16 tokens; the longest has") as refused:
        read(pairs(2, 30, 40), tokenizer, max_length=16)
    assert "█" in refused.value.why and "--overlong" in refused.value.do


def test_long_rows_are_dropped_or_cut_when_that_is_asked(tokenizer):
    texts, items, counted, _ = read(pairs(2, 30), tokenizer, max_length=16, overlong="drop")
    assert (len(texts), counted.dropped, counted.cut) == (1, 1, 0) and items[0].where == "rows.jsonl:1"
    long_answer = Pair("rows.jsonl:9", "The fox ", "runs and " * 20)
    texts, _, counted, problems = read(
        [long_answer, *pairs(30)], tokenizer, max_length=16, overlong="truncate"
    )
    assert (len(texts), counted.cut, counted.answers_cut) == (1, 2, 2)
    assert len(texts[0].ids) == 15 and len(texts[0].trained) > 3
    assert problems.left_out["nothing of the answer is left after truncation"] == 1


def test_best_fit_leaves_no_index_out_and_no_group_too_full():
    draw = np.random.default_rng(3)
    sizes = draw.integers(1, 100, 3000).tolist()
    groups = fitted(sizes, 128)
    assert sorted(index for group in groups for index in group) == list(range(3000))
    sums = [sum(sizes[index] for index in group) for group in groups]
    assert max(sums) <= 128 and sum(sizes) / (128 * len(groups)) > 0.97


def test_each_text_is_whole_in_one_window_and_visited_once_an_epoch(tokenizer):
    draw = np.random.default_rng(5)
    texts = [
        Text(
            f"f:{n}",
            ids := draw.integers(10, 300, size).astype(np.int32),
            np.where(ids % 2, ids, NOT_TRAINED),
        )
        for n, size in enumerate(draw.integers(2, 30, 200))
    ]
    packed = Packed(texts, 32, 4, 7, tokenizer)
    seen: list[bytes] = []
    for step in range(packed.windows // 4):
        rows = packed.pairs(step, 0, 4)
        for ids, targets, starts in zip(rows.ids, rows.targets, rows.starts):
            for begin in dict.fromkeys(starts.tolist()):
                inside = starts == begin
                if (ids[inside] == tokenizer.pad_id).all():
                    assert (targets[inside] == NOT_TRAINED).all()
                    continue
                assert np.array_equal(np.flatnonzero(inside), np.arange(begin, begin + inside.sum()))
                seen.append(ids[inside].tobytes() + targets[inside].tobytes())
    wanted = [t.ids.astype(np.int64).tobytes() + t.targets.astype(np.int64).tobytes() for t in texts]
    assert set(seen) <= set(wanted) and len(seen) == len(set(seen)) > 180
    again = packed.pairs(packed.windows, 0, 4).ids
    assert not np.array_equal(again, packed.pairs(0, 0, 4).ids)


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_the_same_input_is_on_one_side_only(tmp_path):
    rows = [{"prompt": f"Question {n % 50}", "completion": f"answer {n}"} for n in range(200)]
    data = read_dataset([write(tmp_path / "d.jsonl", rows)])
    train, held_out = divided(data, 0.2, 0)
    assert len(train) + len(held_out) == 200 and 15 < len(held_out) < 80
    assert not on_both_sides(train, held_out)
    other, _ = divided(data, 0.2, 1)
    assert [item.where for item in other] != [item.where for item in train]


def test_a_file_that_is_named_so_is_held_out(tmp_path):
    first = write(tmp_path / "train.jsonl", [{"prompt": f"q{n}", "completion": "a"} for n in range(10)])
    second = write(tmp_path / "validation.jsonl", [{"prompt": f"v{n}", "completion": "a"} for n in range(3)])
    train, held_out = divided(read_dataset([first, second]), 0.5, 0)
    assert (len(train), len(held_out)) == (10, 3)


def test_a_file_without_a_row_that_can_be_used_holds_nothing_out(tmp_path):
    first = write(tmp_path / "train.jsonl", [{"prompt": f"q{n}", "completion": "a"} for n in range(40)])
    second = write(tmp_path / "validation.jsonl", [{"text": f"v{n}", "label": "a"} for n in range(3)])
    train, held_out = divided(read_dataset([first, second]), 0.5, 0)
    assert len(train) + len(held_out) == 40 and 10 < len(held_out) < 30


def test_a_sample_is_of_all_rows():
    drawn = sample_of(range(1000), 50, 3)
    assert len(drawn) == 50 and drawn == sorted(set(drawn)) and max(drawn) > 800
    assert sample_of(range(10), 50, 3) == list(range(10))


def test_a_long_conversation_is_read_in_time_that_grows_with_it(tokenizer):
    """20,000 words; a quadratic step takes minutes."""
    chat = Chat("d:1", ({"role": "user", "content": "x"}, {"role": "assistant", "content": "word " * 20_000}))
    row = render_chat(chat, find_template(tokenizer, Path(), "chatml"), tokenizer)
    assert len(row.ids) > 20_000 and sum(row.trained) > 20_000


def test_held_out_rows_that_are_trained_are_refused(tmp_path):
    first = write(tmp_path / "train.jsonl", [{"prompt": f"Q {n}", "completion": "a"} for n in range(10)])
    second = write(tmp_path / "validation.jsonl", [{"prompt": "q  7", "completion": "b"}])
    train, held_out = divided(read_dataset([first, second]), 0.1, 0)
    with pytest.raises(Refused, match=r"1 of 1 held-out rows .*") as refused:
        refuse_overlap(on_both_sides(train, held_out), len(held_out))
    assert "train.jsonl:8" in refused.value.why and "--allow-overlap" in refused.value.do


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_that_is_none_is_refused(tmp_path, share):
    data = read_dataset([write(tmp_path / "d.jsonl", [{"prompt": "q", "completion": "a"}])])
    with pytest.raises(UsageError):
        divided(data, share, 0)
