"""Text from tokens: valid at every moment, nothing lost, and the same however the bytes are cut."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import ownlm
from ownlm.console.errors import Refused
from ownlm.continuation import TextStream, continue_texts, encode_prompt
from ownlm.engine.requests import SamplingSettings


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The bytes in pieces that end at these places."""
    ends = [*sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[begin:end] for begin, end in zip([0, *ends], ends)]


def streamed(pieces: list[bytes], stop: tuple[str, ...] = ()) -> tuple[list[str], TextStream]:
    """What each piece makes certain, up to a stop string, and what is certain at the end."""
    stream, texts = TextStream(stop), []
    for piece in pieces:
        texts.append(stream.push(piece))
        if stream.stopped is not None:
            return texts, stream
    return [*texts, stream.finish()], stream


PLACES = st.lists(st.integers(0, 200), max_size=12)


@given(st.text("a é春👩\n\u200d", max_size=40), PLACES)
@example("春眠不觉晓", [1, 2, 4, 5, 7])
@example("👩‍👩‍👧 é", [1, 2, 3, 5, 6])
def test_whole_text_comes_out_however_it_is_cut(text, places):
    pieces = cut(text.encode(), places)
    expected = b"".join(pieces).decode()
    texts, stream = streamed(pieces)
    so_far = ""
    for number, part in enumerate(texts[:-1]):
        so_far += part
        arrived = b"".join(pieces[: number + 1])
        assert expected.startswith(so_far)
        assert len(arrived) - len(so_far.encode()) < 4  # only an unfinished character is held back
    assert "".join(texts) == expected
    assert stream.unfinished_bytes == 0


@given(st.binary(max_size=40), PLACES)
@example(b"ab\xe6\x98", [1])
@example(b"\xff\xfe\xe6\x98\xa5", [3])
def test_any_bytes_give_valid_text_and_the_unfinished_ones_are_counted(data, places):
    texts, stream = streamed(cut(data, places))
    text = "".join(texts)
    text.encode()
    kept = len(data) - stream.unfinished_bytes
    assert text == data[:kept].decode("utf-8", "replace")
    assert stream.unfinished_bytes < 4


@given(st.text("abc春", max_size=20), st.lists(st.text("abc春", min_size=1, max_size=4), max_size=3), PLACES)
@example("abcab", ["bc", "abca"], [])
@example("aab", ["ab"], [1])
@settings(max_examples=300)
def test_a_stop_string_ends_the_text_at_the_same_place_however_it_is_cut(text, stops, places):
    ends = [(text.find(stop) + len(stop), -len(stop), stop) for stop in stops if stop in text]
    texts, stream = streamed(cut(text.encode(), places), tuple(stops))
    if not ends:
        assert ("".join(texts), stream.stopped) == (text, None)
    else:
        end, _, stop = min(ends)
        assert ("".join(texts), stream.stopped) == (text[: end - len(stop)], stop)


def test_what_may_begin_a_stop_string_is_held_back_and_given_when_it_does_not():
    stream = TextStream(("river.",))
    assert stream.push(b"the riv") == "the "
    assert stream.push(b"al rive") == "rival "
    assert stream.push(b"r") == ""
    assert stream.push(b" runs") == "river runs"


@pytest.fixture(scope="module")
def model(run):
    return ownlm.load(run)


def finished(model, prompts, stop=(), **options):
    """(text of the pieces, completion) of each sequence, in order."""
    sampling = SamplingSettings(stop_token_ids=(model.tokenizer.eos_id,), **options)
    encoded = [encode_prompt(model.tokenizer, prompt) for prompt in prompts]
    texts, done = {}, {}
    for piece in continue_texts(model.engine, model.tokenizer, encoded, [sampling] * len(prompts), stop):
        key = (piece.prompt, piece.index)
        assert key not in done, "text after the end"
        texts[key] = texts.get(key, "") + piece.text
        if piece.completion is not None:
            done[key] = piece.completion
    assert not model.engine.busy
    return [(texts[key], done[key]) for key in sorted(done)]


def test_prompts_together_give_what_each_gives_alone(model):
    prompts = ["The fox", "春眠", "", "3: A river"]
    together = finished(model, prompts, max_new_tokens=9, n=2, seed=4, temperature=1.0)
    alone = [
        entry
        for p in prompts
        for entry in finished(model, [p], max_new_tokens=9, n=2, seed=4, temperature=1.0)
    ]
    for (text, a), (_, b) in zip(together, alone, strict=True):
        assert text == a.text == b.text
        assert a.logprob == pytest.approx(b.logprob, rel=1e-4)
        assert dataclasses.replace(a, logprob=0) == dataclasses.replace(b, logprob=0)
        assert a.prompt_tokens == len(model.tokenizer.encode(a.prompt))


def test_a_stop_string_across_tokens_is_cut_and_the_others_go_on(model):
    ((text, whole),) = finished(model, ["The quick"], max_new_tokens=20, temperature=0.0)
    assert len(text) > 12
    stop = text[4:9]  # in the middle of words: no token border
    expected = text[: text.find(stop)]
    prompts = ["The quick", "春眠"]
    (cut_text, stopped), (other, going) = finished(
        model, prompts, (stop,), max_new_tokens=20, temperature=0.0
    )
    assert cut_text == stopped.text == expected
    assert (stopped.stop, stopped.finish_reason, stopped.bytes_dropped) == (stop, "stop", 0)
    assert stopped.new_tokens < whole.new_tokens
    assert going.new_tokens == 20 or going.finish_reason == "stop"
    assert other == going.text


def test_the_log_probability_is_that_of_all_generated_tokens(model):
    ((_, found),) = finished(model, ["The fox"], max_new_tokens=6, temperature=0.0)
    ids = encode_prompt(model.tokenizer, "The fox").ids
    events = []
    from ownlm.engine.requests import Request

    for event in model.engine.generate([Request(ids, SamplingSettings(temperature=0.0, max_new_tokens=6))]):
        events.append(event.token_id)
    scored = model.engine.score([[*ids, *events]])[0].logprobs
    assert found.logprob == pytest.approx(float(scored[len(ids) - 1 :].sum()), abs=1e-3)


def test_one_prompt_without_room_and_nothing_runs(model):
    sampling = SamplingSettings(max_new_tokens=4)
    prompts = [encode_prompt(model.tokenizer, text) for text in ("The fox", "fox " * 200)]
    with pytest.raises(Refused, match="context window"):
        next(continue_texts(model.engine, model.tokenizer, prompts, [sampling] * 2))
    assert not model.engine.busy


def test_leaving_early_frees_the_engine(model):
    prompt = encode_prompt(model.tokenizer, "The fox")
    pieces = continue_texts(model.engine, model.tokenizer, [prompt], [SamplingSettings(max_new_tokens=20)])
    next(pieces)
    assert model.engine.busy
    pieces.close()
    assert not model.engine.busy


# ---- several callers of one model

OPTIONS = {"max_new_tokens": 12, "stop": ["e"]}


def test_two_streams_that_take_turns_are_what_each_is_alone(model):
    alone = [model.complete(text, seed=n, **OPTIONS)[0] for n, text in enumerate(("The fox", "Rain"))]
    streams = [model.stream(text, seed=n, **OPTIONS) for n, text in enumerate(("The fox", "Rain"))]
    found = [[next(stream)] for stream in streams]
    assert model.complete("The fox", seed=0, **OPTIONS)[0] == alone[0]  # a third one in between
    for pieces, stream in zip(found, streams):
        pieces.extend(stream)
    assert [pieces[-1].completion for pieces in found] == alone
    assert ["".join(piece.text for piece in pieces) for pieces in found] == [c.text for c in alone]
    assert not model.engine.busy


def test_threads_that_share_a_model_get_their_own_texts(model):
    from concurrent.futures import ThreadPoolExecutor

    def text(seed: int) -> object:
        return model.complete("The fox", seed=seed, **OPTIONS)

    alone = [text(seed) for seed in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(text, range(6))) == alone
    assert not model.engine.busy
