"""The split: stable, by group and cluster, and never with an empty side that is not spoken of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownlm.console.errors import Refused, UsageError
from ownlm.corpus.catalogue import BOTH, GROUP, TRAIN, VALIDATION
from ownlm.corpus.dedup import Clusters
from ownlm.corpus.hashes import unit
from ownlm.corpus.split import Rule, assign, tail_cut
from ownlm.corpus.staging import STAGED


@dataclass
class Table:
    """Stands for a catalogue: the rows are all that splitting looks at."""

    rows: np.ndarray

    def chunks(self) -> list[slice]:
        return [slice(begin, min(begin + 7, len(self.rows))) for begin in range(0, len(self.rows), 7)]


def table(count: int, groups: list[int] | None = None) -> Table:
    rows = np.zeros(count, STAGED)
    rows["low"] = np.random.default_rng(5).integers(0, 2**63, count, dtype=np.uint64)
    if groups is not None:
        rows["group"] = groups
    return Table(rows)


def split(
    rule: Rule, documents: Table, clusters: Clusters | None = None, **more: object
) -> tuple[list[int], str]:
    fate = np.zeros(len(documents.rows), np.uint8)
    clusters = clusters or Clusters(np.zeros(len(fate), np.int64))
    settings = {"grouped": False, "validation_documents": 0, "seed": 0} | more
    said = assign(rule, documents, fate, clusters, **settings)  # type: ignore[arg-type]
    return fate.tolist(), said["rule"]


def test_a_document_stays_on_its_side_when_others_are_added() -> None:
    many = table(400)
    before, _ = split(Rule("hash", 0.1), Table(many.rows[100:]))
    after, _ = split(Rule("hash", 0.1), many)
    assert after[100:] == before
    assert 15 < sum(after) < 75


def test_another_seed_gives_another_split() -> None:
    assert split(Rule("hash", 0.3), table(60))[0] != split(Rule("hash", 0.3), table(60), seed=1)[0]


def test_a_cluster_and_a_group_are_on_one_side() -> None:
    documents = table(300, [1 + i % 40 for i in range(300)])
    clusters = Clusters(np.zeros(300, np.int64))
    clusters.parent[:] = np.arange(300) % 40
    sides, rule = split(Rule("hash", 0.3), documents, clusters, grouped=True)
    assert "groups" in rule
    assert 0 < sum(sides) < 300
    for group in range(40):
        assert len(set(sides[group::40])) == 1


def test_few_documents_are_split_inside_and_it_is_said() -> None:
    sides, rule = split(Rule("auto"), table(19))
    assert sides == [BOTH] * 19
    assert rule == "the last 10% of each document: fewer than 20 documents"
    sides, rule = split(Rule("auto"), table(20))
    assert BOTH not in sides
    assert "5% of the documents" in rule


def test_an_empty_validation_side_takes_the_lowest_hash_and_says_so() -> None:
    documents = table(20)
    numbers = unit(documents.rows["low"], 0, "validation split")
    sides, rule = split(Rule("hash", float(numbers.min()) / 2), documents)
    assert [i for i, side in enumerate(sides) if side == VALIDATION] == [int(numbers.argmin())]
    assert "lowest hash" in rule


def test_one_group_alone_is_refused() -> None:
    clusters = Clusters(np.zeros(30, np.int64))
    clusters.parent[:] = 0
    with pytest.raises(Refused, match="one group"):
        split(Rule("hash", 0.5), table(30, [9] * 30), clusters, grouped=True)


def test_copies_of_one_text_are_not_cut_by_the_tail_rule() -> None:
    clusters = Clusters(np.zeros(4, np.int64))
    clusters.unite(np.array([0]), np.array([2]))
    assert split(Rule("tail", 0.1), table(4), clusters)[0] == [TRAIN, BOTH, TRAIN, BOTH]


def test_the_tail_rule_and_groups_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="split from its group"):
        split(Rule("tail", 0.1), table(4), grouped=True)


def test_validation_files_stay_out_of_training_with_all_that_belongs_to_them() -> None:
    clusters = Clusters(np.zeros(6, np.int64))
    clusters.unite(np.array([1]), np.array([4]))
    sides, rule = split(Rule("paths", paths=("held.txt",)), table(6), clusters, validation_documents=2)
    assert sides == [VALIDATION, VALIDATION, TRAIN, TRAIN, GROUP, TRAIN]
    assert "held.txt" in rule
    clusters.unite(np.array([1, 1, 1]), np.array([2, 3, 5]))
    with pytest.raises(Refused, match="no text is left for training"):
        split(Rule("paths", paths=("held.txt",)), table(6), clusters, validation_documents=2)


@pytest.mark.parametrize("value", ["hash:0", "hash:1", "tail:x", "hash:"])
def test_a_share_is_between_0_and_1(value: str) -> None:
    with pytest.raises(UsageError, match="share between 0 and 1"):
        Rule.parse([value])


@pytest.mark.parametrize("kind", ["hash", "tail"])
def test_a_rule_without_its_share_says_what_is_missing(kind: str) -> None:
    with pytest.raises(UsageError, match=f"{kind} needs a share") as error:
        Rule.parse([kind])
    assert Rule.parse([error.value.do.removeprefix("--validation ")]).kind == kind


def test_rules_and_paths_are_told_apart() -> None:
    assert Rule.parse(["auto"]).kind == "auto"
    assert Rule.parse(["none"]).kind == "none"
    assert Rule.parse(["tail:0.2"]) == Rule("tail", 0.2)
    assert Rule.parse(["a.txt", "b/"]) == Rule("paths", paths=("a.txt", "b/"))
    with pytest.raises(UsageError, match="beside"):
        Rule.parse(["a.txt", "hash:0.1"])


@given(text=st.text(alphabet="ab \n春晓é", max_size=200), share=st.sampled_from([0.05, 0.1, 0.25, 0.5]))
def test_a_tail_is_cut_at_a_character_and_loses_nothing(text: str, share: float) -> None:
    data = text.encode()
    cut = tail_cut(data, share)
    assert 0 < cut <= len(data) or not data
    assert data[:cut].decode() + data[cut:].decode() == text


def test_a_tail_begins_at_a_line() -> None:
    text = "".join(f"line {i}\n" for i in range(100)).encode()
    cut = tail_cut(text, 0.1)
    assert text[cut - 1 : cut + 5] == b"\nline "
    assert 0.85 < cut / len(text) < 0.95
    assert abs(tail_cut("春".encode() * 1000, 0.1) - 2700) <= 3
