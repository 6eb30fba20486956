"""The facts that quickstart ends with: figures of the model, each beside its baseline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownlm.console import output as out
from ownlm.evaluation.compression import Compression
from ownlm.evaluation.metrics import Metric

if TYPE_CHECKING:
    from ownlm.corpus.shards import Corpus, Split

NGRAM_BYTES = (
    20_000_000  # training text the 4-gram counter reads; more is not needed for its accuracy, and is said
)
GENERATED_TEXTS, GENERATED_TOKENS = 24, 128
SWAPS = 500
LEAST = 20  # pairs or prompts; a share of fewer says too little


def collect(run: Path, corpus: Corpus, seed: int) -> dict[str, Any]:
    """Measure everything and keep it in the run's facts.json.

    Args:
        run: a finished run folder trained on `corpus`.
        seed: of draws and bootstrap.
    """
    from ownlm.loaded import load
    from ownlm.model.checkpoint import write_json
    from ownlm.training.log import read_log

    model = load(run)
    samples = [line for line in read_log(run / "log.jsonl") if line["kind"] == "sample"]
    measured = {
        "bits per byte": _bits(model, corpus),
        "true line preferred": _swaps(model, corpus, seed),
        "completions that parse": _completions(model, corpus, seed),
        "new, not copied": _novelty(model, corpus, seed),
    }
    content = {
        "facts": [fact for fact in measured.values() if isinstance(fact, dict)],
        "left_out": [{"name": name, "why": why} for name, why in measured.items() if isinstance(why, str)],
        "prompt": samples[-1]["prompt"] if samples else "",
        "samples": [{"seconds": line["seconds"], "text": line["text"]} for line in samples],
    }
    write_json(run / "facts.json", content)
    return content


def _texts(split: Split, limit: int | None = None) -> Iterator[str]:
    """The documents of a split as text, up to about `limit` bytes."""
    done = 0
    for number in range(split.num_documents):
        if limit is not None and done > limit:
            return
        text = split.document_text(number)
        done += len(text.encode())
        yield text


def _counter_read(train: Split) -> str:
    """For notes: how much the 4-gram counters read, when it is not the whole training text."""
    whole = train.num_bytes <= NGRAM_BYTES
    return "" if whole else f"; the counter read the first {out.human_bytes(NGRAM_BYTES)}"


def _baseline(name: str, value: float | Metric, better: str) -> dict[str, Any]:
    return {"name": name, "value": value, "better": better}


def _bits(model: Any, corpus: Corpus) -> dict[str, Any] | str:
    """Bits per byte of the full validation pass beside gzip and xz of the same text."""
    bits = (model.run.get("result") or {}).get("bits_per_byte")
    if bits is None:
        return "no text is held out"
    compression = Compression()
    for text in _texts(corpus.split("validation")):
        compression.feed(text.encode())
    baselines = [_baseline(name, value, "lower") for name, value in compression.bits_per_byte().items()]
    note = "held-out text; lower is better"
    return {"name": "bits per byte", "value": bits, "unit": "bits", "baselines": baselines, "note": note}


def _swaps(model: Any, corpus: Corpus, seed: int) -> dict[str, Any] | str:
    """How often the true line wins over the one with a swapped word."""
    from ownlm.evaluation.swaps import NgramCounter, prefer_true, swap_pairs, word_counts

    train = corpus.split("train")
    vocabulary = word_counts(_texts(train, NGRAM_BYTES))
    pairs = swap_pairs(_texts(corpus.split("validation")), vocabulary, model.tokenizer, SWAPS, seed)
    if len(pairs) < LEAST:
        return f"{len(pairs)} held-out lines have a word to swap; {LEAST} are needed"
    counter = NgramCounter(_texts(train, NGRAM_BYTES))
    value = prefer_true(model.text_scorer, model.tokenizer, pairs, model.context)
    note = f"{len(pairs)} held-out lines, one word swapped for one as common and as long in tokens"
    note += _counter_read(train)
    baselines = [
        _baseline("4-gram counter", counter.prefer_true(pairs), "higher"),
        _baseline("chance", 0.5, "higher"),
    ]
    return {
        "name": "true line preferred",
        "value": value,
        "unit": "share",
        "baselines": baselines,
        "note": note,
    }


def _completions(model: Any, corpus: Corpus, seed: int) -> dict[str, Any] | str:
    """For Python source: the share of completed functions that parse."""
    from ownlm.evaluation.completions import (
        NEW_TOKENS,
        counter_share,
        function_prompts,
        parsed_share,
        true_share,
    )
    from ownlm.evaluation.ngram_writer import NgramWriter

    tokenizer = model.tokenizer
    held_out = _texts(corpus.split("validation"), NGRAM_BYTES)
    prompts = function_prompts(held_out, tokenizer, model.context, seed=seed)
    if len(prompts) < LEAST:
        return f"{len(prompts)} Python functions in the held-out text fit the context; {LEAST} are needed"
    train = corpus.split("train")
    read = train.num_tokens * min(1.0, NGRAM_BYTES / train.num_bytes)
    writer = NgramWriter(train.read(0, int(read)))
    note = (
        "functions of held-out files, completed from their first line; a text that reaches "
        f"{NEW_TOKENS} tokens or the end of the window is judged as far as it goes" + _counter_read(train)
    )
    baselines = [
        _baseline("4-gram counter", counter_share(writer, tokenizer, prompts, seed), "higher"),
        _baseline("the true functions, cut the same way", true_share(tokenizer, prompts), "higher"),
    ]
    return {
        "name": "completions that parse",
        "value": parsed_share(model.engine, tokenizer, prompts, seed),
        "unit": "share",
        "baselines": baselines,
        "note": note,
    }


def _novelty(model: Any, corpus: Corpus, seed: int) -> dict[str, Any] | str:
    """New, not copied: generated 8-token runs that are not in the training text, beside held-out real text."""
    from ownlm.engine import Request, SamplingSettings
    from ownlm.evaluation.novelty import RUN_TOKENS, token_chunks, unseen_share
    from ownlm.seeds import derive

    tokenizer, validation = model.tokenizer, corpus.split("validation")
    new = min(GENERATED_TOKENS, model.context - 1)
    if new < 2 * RUN_TOKENS:
        return f"a context of {model.context} tokens is too short for texts of {2 * RUN_TOKENS}"
    if validation.num_tokens < 2 * RUN_TOKENS:
        return f"fewer than {2 * RUN_TOKENS} held-out tokens"
    settings = SamplingSettings(
        temperature=0.8, max_new_tokens=new, n=GENERATED_TEXTS, stop_token_ids=(tokenizer.eos_id,),
        seed=derive(seed, "novelty") % 2**32,
    )  # fmt: skip
    texts: dict[int, list[int]] = {}
    for event in model.engine.generate([Request([tokenizer.eos_id], settings)]):
        texts.setdefault(event.index, []).append(event.token_id)
    train = corpus.split("train")
    generated = [ids for ids in texts.values() if len(ids) >= RUN_TOKENS]
    if not generated:
        return f"the model ended every text before {RUN_TOKENS} tokens"
    value = unseen_share(generated, token_chunks(train), seed=seed)
    pieces = [validation.read(i * new, (i + 1) * new) for i in range(min(200, validation.num_tokens // new))]
    baselines = []
    if pieces:
        real = unseen_share(pieces, token_chunks(train), seed=seed)
        # No direction is better: a model far above it writes nonsense, one far below it copies.
        baselines.append(_baseline("held-out real text", real, ""))
    note = f"generated runs of {RUN_TOKENS} tokens that are not in the training text"
    return {"name": "new, not copied", "value": value, "unit": "share", "baselines": baselines, "note": note}


def show(content: dict[str, Any], corpus: Corpus) -> None:
    """Print the facts, the samples, and what so much text can give."""
    rows = []
    for fact in content["facts"]:
        beside = ", ".join(f"{b['name']} {_number(b['value'], fact['unit'])}" for b in fact["baselines"])
        rows.append((fact["name"], _number(fact["value"], fact["unit"]), beside, fact["note"]))
    out.table("Facts", ("figure", "this model", "beside", "what it is"), rows)
    for entry in content["left_out"]:
        out.say(f"  not measured: {entry['name']}: {entry['why']}")
    bits = next((fact for fact in content["facts"] if fact["name"] == "bits per byte"), None)
    if bits:
        for baseline in bits["baselines"]:
            ratio = bits["value"]["value"] / baseline["value"]
            word = "better" if ratio < 1 else "worse"
            out.say(f"  {abs(1 - ratio):.0%} {word} than {baseline['name']} on the held-out text")
    if content["samples"]:
        out.say()
        out.say(f"One prompt, continued: {content['prompt']!r}", style="bold")
        for sample in content["samples"]:
            text = " ".join(sample["text"].split())[:160]
            out.say(f"  after {out.human_seconds(sample['seconds'])}: {text}")
    out.say()
    out.say(_what_it_can_give(corpus.split("train").num_bytes))


def _number(value: float | Metric, unit: str) -> str:
    middle = value["value"] if isinstance(value, dict) else value
    text = f"{middle:.0%}" if unit == "share" else f"{middle:.3f}"
    if isinstance(value, dict):
        ends = (f"{value[end]:.0%}" if unit == "share" else f"{value[end]:.3f}" for end in ("low", "high"))
        text += " ({} to {})".format(*ends)
    return text


def _what_it_can_give(size: int) -> str:
    """One honest sentence by the amount of text."""
    read = f"It read {out.human_bytes(size)} of text. "
    if size < 1_000_000:
        return read + "That gives letters, common words and the look of the text: no sense, no facts."
    if size < 100_000_000:
        return read + "That gives style, vocabulary and odd lines that look right: not facts, not answers."
    return read + "That gives style, vocabulary and sentences that hold together: facts only by chance."
