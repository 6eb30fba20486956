"""Named entities: the published examples of seqeval, and the rules of conlleval one by one."""

from __future__ import annotations

import pytest

from ownlm.evaluation.tasks import measure
from ownlm.evaluation.tasks.entities import entities
from ownlm.tasks.items import Tagged


def tagged(*tags: str) -> Tagged:
    return Tagged("rows.jsonl:1", tuple(f"w{n}" for n in range(len(tags))), tags)


def test_the_example_of_seqeval():
    """README of chakki-works/seqeval: MISC 0 of 1, PER 1 of 1, micro F1 0.50."""
    expected = ["O O O B-MISC I-MISC I-MISC O", "B-PER I-PER O"]
    got = ["O O B-MISC I-MISC I-MISC I-MISC O", "B-PER I-PER O"]
    items = [tagged(*row.split()) for row in expected]
    found = measure("ner", items, [{"tags": row.split()} for row in got])
    assert found.metrics["entity_f1"]["value"] == 0.5
    by_type = {each["name"]: each for each in found.classes}
    assert by_type["MISC"] == {"name": "MISC", "precision": 0, "recall": 0, "f1": 0, "n": 1}
    assert by_type["PER"] == {"name": "PER", "precision": 1, "recall": 1, "f1": 1, "n": 1}
    assert [row.right for row in found.rows] == [False, True]
    assert found.rows[1].got == "PER w0 w1"


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-PER I-PER O B-LOC", [("PER", 0, 2), ("LOC", 3, 4)]),  # docstring of seqeval's get_entities
        ("B-PER B-PER", [("PER", 0, 1), ("PER", 1, 2)]),
        ("O I-PER I-PER", [("PER", 1, 3)]),  # an I without a B begins one (conlleval)
        ("B-PER I-LOC", [("PER", 0, 1), ("LOC", 1, 2)]),  # another type begins one
        ("I-PER B-PER", [("PER", 0, 1), ("PER", 1, 2)]),
        ("B-PER I-PER E-PER S-LOC", [("PER", 0, 3), ("LOC", 3, 4)]),  # IOBES
        ("S-PER I-PER", [("PER", 0, 1), ("PER", 1, 2)]),
        ("B-PER L-PER U-LOC O", [("PER", 0, 2), ("LOC", 2, 3)]),  # BILOU
        ("PER PER O LOC", [("PER", 0, 2), ("LOC", 3, 4)]),  # no prefixes
        ("B-date-time I-date-time", [("date-time", 0, 2)]),
        ("O O", []),
    ],
)
def test_where_entities_begin_and_end(tags, expected):
    assert entities(tags.split()) == expected


def test_micro_figures_over_rows():
    items = [tagged("B-PER", "I-PER", "O", "B-LOC")] * 2 + [tagged("O", "B-LOC")]
    got = [["B-PER", "O", "O", "B-LOC"], ["B-PER", "I-PER", "O", "O"], ["B-LOC", "B-LOC"]]
    found = measure("ner", items, [{"tags": tags} for tags in got])
    right, there, predicted = 3, 5, 5
    assert found.metrics["entity_precision"]["value"] == pytest.approx(right / predicted)
    assert found.metrics["entity_recall"]["value"] == pytest.approx(right / there)
    assert found.metrics["entity_f1"]["value"] == pytest.approx(2 * right / (predicted + there))
    assert found.metrics["entity_f1"]["n"] == 3


def test_rows_without_entities():
    found = measure("ner", [tagged("O", "O")] * 3, [{"tags": ["O", "O"]}] * 3)
    assert found.metrics["entity_f1"]["value"] == 0 and found.rows[0].right is True
    assert any("No row has an entity" in note for note in found.notes)


def test_another_number_of_tags_is_an_error():
    with pytest.raises(ValueError, match=r"rows\.jsonl:1: 1 tags for 2 words"):
        measure("ner", [tagged("O", "O")], [{"tags": ["O"]}])
