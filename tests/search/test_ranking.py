"""Which passage comes first, and what counts as found."""

from pathlib import Path

import numpy as np
import pytest

from ownlm.search import bm25
from ownlm.search.cache import Opened, open_index
from ownlm.search.ranking import best, nearness, passage_scores, search, share_of
from ownlm.search.terms import question_terms

FILLER = "The river runs to the sea. Rain falls on the hills. The fox goes home at night. "


def index_of(tmp_path: Path, **texts: str) -> Opened:
    folder = tmp_path / "texts"
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return open_index(folder)


def files(opened: Opened, question: str, top_k: int = 5) -> list[str]:
    return [Path(hit.file).stem for hit in search(opened, question, top_k).hits]


def test_bm25_is_the_formula():
    """Lucene's form, written out."""
    texts = [[0, 1, 1, 2], [1, 3], [2, 2, 2, 4, 4, 0]]
    ids = np.array([term for text in texts for term in text], np.uint32)
    starts = np.cumsum([0, *map(len, texts)])
    made = bm25.build(ids, starts, 5)
    for term in range(5):
        df = sum(term in text for text in texts)
        idf = np.log(1 + (3 - df + 0.5) / (df + 0.5))
        assert made.idf(term) == pytest.approx(idf)
        for number, text in enumerate(texts):
            tf = text.count(term)
            part = tf / (tf + bm25.K1 * (1 - bm25.B + bm25.B * len(text) / 4))
            assert made.sums({term: 2.0})[number] == pytest.approx(2 * idf * part, rel=1e-5)
            assert made.frequency_part(term, number) == pytest.approx(part, rel=1e-5)
    assert made.idf(None) > made.idf(3) > made.idf(2)


def test_words_near_each_other_come_first(tmp_path):
    opened = index_of(
        tmp_path,
        near="The stone bridge was built by monks. " + FILLER,
        far="The stone lay there. " + FILLER + "A bridge was shut.",
    )
    assert files(opened, "Who built the stone bridge?")[0] == "near"
    ids = opened.index.term_ids
    spaced = [ids["ston"], ids["bridg"]]
    numbers = {Path(search(opened, q, 1).hits[0].file).stem: q for q in ("stone bridge", "shut bridge")}
    assert set(numbers) == {"near", "far"}
    values = [nearness(opened.index, passage, spaced) for passage in range(2)]
    assert min(values) == 0
    assert max(values) > 0


def test_the_whole_document_decides_between_equal_passages(tmp_path):
    people = f"\n\n# People\n\nThe chief is Ada. {FILLER * 5}"
    whales, snow = (
        f"# First\n\n{sentence * 60}{people}"
        for sentence in ("Whales sing in bays. ", "Snow lies in vales. ")
    )
    opened = index_of(tmp_path, a=snow, b=whales)
    for name, first in (("whales", "b"), ("snow", "a")):
        hits = search(opened, f"Who is the chief of the {name}?", 9).hits
        assert next(Path(hit.file).stem for hit in hits if "chief" in hit.text) == first


def test_headings_and_file_names_count(tmp_path):
    opened = index_of(
        tmp_path,
        install=FILLER,
        other=f"Uninstalling\n============\n{FILLER * 8}\n\nLicence\n=======\n{FILLER * 8}",
    )
    assert files(opened, "How do I install it?")[0] == "install"
    hit = search(opened, "licence", 1).hits[0]
    assert hit.heading == "Licence"


def test_chinese_is_found_by_pairs_of_characters(tmp_path):
    opened = index_of(tmp_path, a="上海的大学在海上。", b="北京大学在上海没有校区。", c="大海上的学生。")
    assert files(opened, "上海大学在哪里？")[0] == "a"
    assert files(opened, "北京大学在哪里？")[0] == "b"


def test_mixed_text(tmp_path):
    opened = index_of(tmp_path, a="《战国无双3》由光荣和ω-force开发。", b="Nexon开发了《泡泡战士》。")
    assert files(opened, "Nexon开发了什么？")[0] == "b"
    assert files(opened, "ω-force developed 战国无双")[0] == "a"


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("Who wrote the ballad of the lighthouse?", True),
        ("Who writes ballads of lighthouses?", True),
        ("lighthouse", True),
        ("Who repaired the engine of the submarine?", False),
        ("Who wrote the manual of the submarine engine?", False),
        ("谁写了这首歌？", False),
    ],
)
def test_found_or_not(tmp_path, question, found):
    opened = index_of(tmp_path, a="Ada wrote the ballad of the lighthouse in 1842. " + FILLER, b=FILLER)
    results = search(opened, question, 5)
    assert results.found == found, results.share


def test_the_share_is_one_for_all_and_zero_for_nothing(tmp_path):
    opened = index_of(tmp_path, a="lighthouse " * 50, b=FILLER)
    weights = question_terms("lighthouse")
    passage = int(best(passage_scores(opened.index, weights), 1)[0])
    assert share_of(opened.index, weights, passage) > 0.95
    nothing = search(opened, "submarine", 5)
    assert (nothing.share, nothing.hits, nothing.missing) == (0.0, [], ["submarine"])
    half = question_terms("lighthouse submarine")
    assert 0.4 < share_of(opened.index, half, passage) < 0.6


def test_in_one_short_document_no_word_is_rare(tmp_path):
    """By the idf of a single passage an unknown word would weigh five times as much as a known one."""
    file = tmp_path / "note.txt"
    file.write_text("The river runs to the sea, and the fox runs home.", encoding="utf-8")
    assert search(open_index(file), "Where does the river run eventually?", 1).found


def test_another_script_is_noticed(tmp_path):
    english = index_of(tmp_path, a=FILLER)
    assert search(english, "河流流向哪里？", 5).other_script
    assert not search(english, "Where does the river run?", 5).other_script
    (tmp_path / "zh.txt").write_text("春眠不觉晓，处处闻啼鸟。" * 20, encoding="utf-8")
    chinese = open_index(tmp_path / "zh.txt")
    assert search(chinese, "Where does the river run?", 5).other_script
    assert not search(chinese, "处处闻什么？", 5).other_script


def test_equal_scores_keep_the_order_of_the_documents():
    scores = np.array([1, 3, 0, 3, 2, 3, -1], np.float32)
    assert best(scores, 4).tolist() == [1, 3, 5, 4]
    assert best(scores, 2).tolist() == [1, 3]
    assert best(scores, 9).tolist() == [1, 3, 5, 4, 0]
    assert best(np.zeros(3, np.float32), 2).tolist() == []


def test_the_line_of_a_place_in_a_passage(tmp_path):
    opened = index_of(tmp_path, a="One.\nTwo.\n\nThe owl is three.\n")
    hit = search(opened, "owl", 1).hits[0]
    assert hit.place.endswith("a.txt:1")
    assert hit.place_of(hit.text.index("owl")).endswith("a.txt:4")


def test_a_place_in_a_row_is_that_of_the_row(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "One."}\n{"text": "Two.\\nThe owl is three."}\n')
    hit = search(open_index(tmp_path / "a.jsonl"), "owl", 1).hits[0]
    assert hit.place_of(hit.text.index("owl")) == hit.place == f"{tmp_path}/a.jsonl:2"
