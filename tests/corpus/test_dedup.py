"""Duplicates: what is the same, or nearly, is found; what only looks alike is not."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownlm.corpus import buckets, hashes
from ownlm.corpus.buckets import Buckets
from ownlm.corpus.dedup import THRESHOLD, Clusters, exact_duplicates, link_near_duplicates

WORDS = [f"{a}{b}{c}" for a in "bdklmnrst" for b in "aeiou" for c in ("nd", "st", "rk", "l")]
HAN = [chr(c) for c in range(0x4E00, 0x4E00 + 2000)]


def english(seed: int, words: int) -> list[str]:
    return random.Random(seed).choices(WORDS, k=words)


def chinese(seed: int, characters: int) -> list[str]:
    return random.Random(seed).choices(HAN, k=characters)


def linked(texts: list[str], folder: Path) -> tuple[list[int], np.ndarray]:
    signatures, owners = hashes.signatures([text.encode() for text in texts])
    clusters = Clusters(np.zeros(len(texts), np.int64))
    similarity = np.zeros(len(texts), np.float32)
    link_near_duplicates(signatures, owners, clusters, similarity, folder)
    return clusters.roots(np.arange(len(texts))).tolist(), similarity


@pytest.mark.parametrize(("make", "joint", "length"), [(english, " ", 400), (chinese, "", 300)])
def test_a_text_with_a_few_changes_is_linked_and_a_different_one_is_not(
    make: object, joint: str, length: int, tmp_path: Path
) -> None:
    texts = []
    for seed in range(20):
        units = make(seed, length)  # type: ignore[operator]
        texts.append(joint.join(units))
        units[seed * 3] = units[(seed + 7) * 5]
        texts.append(joint.join(units))
    roots, similarity = linked(texts, tmp_path)
    assert roots == [i - i % 2 for i in range(40)]
    assert similarity.min() >= THRESHOLD


def test_case_spaces_and_punctuation_do_not_hide_a_copy(tmp_path: Path) -> None:
    text = " ".join(english(1, 200))
    other = text.upper().replace(" ", ",\n   ") + "!"
    roots, similarity = linked([text, other], tmp_path)
    assert roots == [0, 0]
    assert similarity[1] == 1.0


def test_short_texts_are_left_to_exact_comparison() -> None:
    signatures, owners = hashes.signatures([b"a - b", b"a + b", "春眠不觉晓,处处闻啼鸟。".encode()])
    assert owners.tolist() == [2]
    assert signatures.shape == (1, hashes.PERMUTATIONS)


def test_the_estimate_is_the_jaccard_similarity_of_the_windows() -> None:
    one, other = english(1, 3000), english(2, 3000)
    errors = []
    for share in (0.5, 0.8, 0.95):
        mixed = one[: int(3000 * share)] + other[int(3000 * share) :]
        texts = [" ".join(one).encode(), " ".join(mixed).encode()]
        sets = []
        for text in texts:
            folded = text.replace(b" ", b"")
            sets.append({folded[i : i + 24] for i in range(len(folded) - 23)})
        signatures, _ = hashes.signatures(texts)
        estimate = (signatures[0] == signatures[1]).mean()
        errors.append(abs(estimate - len(sets[0] & sets[1]) / len(sets[0] | sets[1])))
    assert max(errors) < 0.15  # three standard errors


def test_a_long_text_has_the_signature_of_its_pieces_together(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [" ".join(english(seed, 900)).encode() for seed in range(4)] + ["诗".encode() * 50]
    whole = hashes.signatures(texts)
    monkeypatch.setattr(hashes, "ROW", 500)
    pieces = hashes.signatures(texts)
    assert np.array_equal(whole[0], pieces[0])
    assert np.array_equal(whole[1], pieces[1])


@given(keys=st.lists(st.integers(0, 6), min_size=1, max_size=60))
def test_exact_duplicates_point_to_the_first(
    tmp_path_factory: pytest.TempPathFactory, keys: list[int]
) -> None:
    # Keys 0 to 3 differ only in bits that sorting ignores: the rare case that is looked at one by one.
    high = np.array([key if key < 4 else key << 60 for key in keys], np.uint64)
    low = np.array([key % 2 for key in keys], np.uint64)
    texts = list(zip(high.tolist(), low.tolist()))
    found = exact_duplicates(high, low, tmp_path_factory.mktemp("x"))
    assert found.tolist() == [texts.index(text) for text in texts]


@given(data=st.data(), count=st.integers(1, 60))
def test_clusters_are_connected_components(data: st.DataObject, count: int) -> None:
    edge = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1))
    edges = data.draw(st.lists(edge, max_size=80))
    clusters = Clusters(np.zeros(count, np.int64))
    half = len(edges) // 2
    for part in (edges[:half], edges[half:]):
        array = np.array(part, np.int64).reshape(-1, 2)
        clusters.unite(array[:, 0], array[:, 1])
    expected = list(range(count))
    for _ in range(count):
        for a, b in edges:
            expected[a] = expected[b] = min(expected[a], expected[b])
    assert clusters.roots(np.arange(count)).tolist() == expected


def test_groups_are_united_and_documents_without_one_are_not(tmp_path: Path) -> None:
    clusters = Clusters(np.zeros(6, np.int64))
    clusters.unite_equal(np.array([7, 0, 9, 7, 0, 9], np.uint64), tmp_path)
    assert clusters.roots(np.arange(6)).tolist() == [0, 1, 2, 0, 4, 2]


def test_sorting_on_disk_finds_what_sorting_in_memory_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random_keys = np.random.default_rng(0).integers(0, 2**63, 3000, dtype=np.uint64) * np.uint64(2)
    random_keys[1500:] = random_keys[:1500]
    numbers = np.arange(3000)

    def pairs() -> set[tuple[int, int]]:
        made = Buckets(tmp_path, 3000, 3000)
        for begin in range(0, 3000, 700):
            made.add(random_keys[begin : begin + 700], numbers[begin : begin + 700])
        return {(a, b) for first, _, other in made.pairs() for a, b in zip(first.tolist(), other.tolist())}

    in_memory = pairs()
    monkeypatch.setattr(buckets, "IN_MEMORY", 100)
    on_disk = pairs()
    assert in_memory == on_disk == {(i, i + 1500) for i in range(1500)}
    assert not list(tmp_path.iterdir())
