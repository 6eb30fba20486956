"""Translation, summarization, completion and chat: how near a text is to what was expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ownlm.evaluation.tasks.bleu import bleu, choose_tokenizer
from ownlm.evaluation.tasks.bootstrap import mean
from ownlm.evaluation.tasks.chrf import SIGNATURE, chrf
from ownlm.evaluation.tasks.measured import Measured
from ownlm.evaluation.tasks.result import Row
from ownlm.evaluation.tasks.rouge import KINDS, TOKENIZER, rouge
from ownlm.evaluation.tasks.sentences import first_sentence
from ownlm.tasks.items import Chat, Pair, output_text

TOKENIZED = 100  # answers that end in " ."; sacrebleu warns from here


def measure_translations(items: Sequence[Pair], predictions: Sequence[Mapping[str, Any]]) -> Measured:
    """BLEU and chrF of `TextPrediction`s."""
    texts, references = _texts(predictions), [_references(item) for item in items]
    tokenizer, note = choose_tokenizer(items[0].languages[1], references)
    counted, signature = bleu(texts, references, tokenizer)
    near, each = chrf(texts, references)
    notes = [note] if note else []
    if sum(text.endswith(" .") for text in texts) >= TOKENIZED:
        notes.append(
            f'{TOKENIZED} translations and more end in " .": BLEU is for text that is not tokenized.'
        )
    nrefs = signature.split("|", 1)[0]
    return Measured(
        [counted, near],
        [_row(item, text, None, {"chrf": float(value)}) for item, text, value in zip(items, texts, each)],
        how={"bleu": signature, "chrf": f"{nrefs}|{SIGNATURE}"},
        notes=notes,
    )


def measure_summaries(items: Sequence[Pair], predictions: Sequence[Mapping[str, Any]]) -> Measured:
    """ROUGE-1, 2 and L of `TextPrediction`s."""
    texts = _texts(predictions)
    table = rouge(texts, [_references(item) for item in items])
    return Measured(
        [mean(name, table[:, number]) for number, name in enumerate(KINDS)],
        [
            _row(item, text, None, dict(zip(KINDS, values.tolist())))
            for item, text, values in zip(items, texts, table)
        ],
        how={"rouge": TOKENIZER},
    )


def measure_completions(items: Sequence[Pair | Chat], predictions: Sequence[Mapping[str, Any]]) -> Measured:
    """Exact match (without the blanks around), chrF, and how many stopped by themselves, of `TextPrediction`s."""
    texts, references = _texts(predictions), [_references(item) for item in items]
    same = [float(text.strip() in {each.strip() for each in right}) for text, right in zip(texts, references)]
    near, each = chrf(texts, references)
    figures = [mean("exact_match", same), near]
    reasons = [prediction.get("finish_reason") for prediction in predictions]
    if all(reasons):
        figures.append(mean("stopped", [float(reason != "length") for reason in reasons]))
    rows = [
        _row(item, text, bool(hit), {"exact_match": hit, "chrf": float(value)})
        for item, text, hit, value in zip(items, texts, same, each)
    ]
    return Measured(figures, rows, how={"chrf": SIGNATURE})


def source_copied(items: Sequence[Pair]) -> tuple[str, list[dict[str, Any]]]:
    """The baseline of translation."""
    return "the source copied", [{"text": item.source} for item in items]


def lead_1(items: Sequence[Pair]) -> tuple[str, list[dict[str, Any]]]:
    """The baseline of summarization."""
    return "lead-1 (the first sentence)", [{"text": first_sentence(item.source)} for item in items]


def asked(item: Pair | Chat) -> str:
    """What the model is given; of a conversation all turns before the last one of the assistant."""
    if isinstance(item, Pair):
        return item.source
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in item.messages[: _last_answer(item)])


def _references(item: Pair | Chat) -> list[str]:
    if isinstance(item, Pair):
        return list(dict.fromkeys((item.target, *item.others)))
    answer = item.messages[_last_answer(item)]
    return [output_text(Chat(item.where, (answer,)))]


def _last_answer(item: Chat) -> int:
    return max(place for place, turn in enumerate(item.messages) if turn["role"] == "assistant")


def _texts(predictions: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(prediction["text"]) for prediction in predictions]


def _row(item: Pair | Chat, got: str, right: bool | None, values: dict[str, float]) -> Row:
    return Row(item.where, asked(item), tuple(_references(item)), got, right, values)
