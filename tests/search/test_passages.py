"""Documents are cut at headings, paragraphs and sentences; nothing is lost and lines are kept."""

import pytest

from ownlm.search.passages import LONGEST, passages, size_of

SENTENCES = ["The river runs to the sea.", "Rain falls on the hills!", "Who hears the fox?", "春眠不觉晓。"]


def test_headings_stand_above_their_passages():
    body = "The fox runs home over the hills. " * 15
    text = f"# Animals\n\n## Foxes\n{body}\n\n## Owls\n{body}\n\nPlants\n======\n{body}\n\nTrees\n-----\n{body}\n"
    found = list(passages(text))
    assert [p.heading for p in found] == [
        "Animals › Foxes", "Animals › Owls", "Plants", "Plants › Trees",
    ]  # fmt: skip
    assert [text.splitlines()[p.line] for p in found][1:] == ["## Owls", "Plants", "Trees"]
    assert "## Foxes" in found[0].text


def test_what_looks_like_a_heading_inside_code_is_none():
    body = "The fox runs home over the hills. " * 15
    text = f"# Real\n{body}\n```sh\n# a comment\nls\n```\n{body}"
    assert {p.heading for p in passages(text)} == {"Real"}


def test_short_sections_are_joined():
    text = "".join(f"## Part {n}\nOne line about {n}.\n\n" for n in range(6))
    (found,) = passages(text)
    assert "Part 0" in found.text
    assert "Part 5" in found.text


@pytest.mark.parametrize(
    "text",
    [
        " ".join(f"{n} {SENTENCES[n % 4]}" for n in range(400)),
        "\n\n".join(" ".join(f"{n}, {k}: {SENTENCES[k % 4]}" for k in range(9)) for n in range(40)),
        "".join(chr(0x4E00 + n) for n in range(4000)),
        "".join(str(n) for n in range(5000)),
        " ".join(f"word{n}" for n in range(4000)),
        "\n".join(f"row {n}" for n in range(2000)),
    ],
)
def test_passages_are_small_and_hold_everything(text):
    found = list(passages(text))
    assert all(0 < size_of(p.text) <= LONGEST for p in found)
    assert sum(size_of(p.text) for p in found) < 1.35 * size_of(text)  # overlap costs little
    end = 0
    for passage in found:
        begin = text.find(passage.text)
        assert begin >= 0
        assert not text[end:begin].strip(), "a gap between passages"
        assert text.count("\n", 0, begin) == passage.line
        end = max(end, begin + len(passage.text))
    assert not text[end:].strip()


def test_a_cut_in_a_paragraph_repeats_a_sentence_and_one_between_paragraphs_does_not():
    sentences = [f"Sentence number {n} tells of the river." for n in range(60)]
    flowing = [p.text for p in passages(" ".join(sentences))]
    assert all(p.startswith("Sentence") and p.endswith(".") for p in flowing)
    assert sum(text.count("number") for text in flowing) == 60 + len(flowing) - 1
    paragraphs = [p.text for p in passages("\n\n".join(sentences))]
    assert sum(text.count("number") for text in paragraphs) == 60


def test_pieces_of_a_long_section_have_about_the_same_size():
    sizes = [size_of(p.text) for p in passages("The river runs to the sea. " * 100)]
    assert min(sizes) > 0.6 * max(sizes)


def test_blank_texts_have_no_passages():
    assert list(passages("")) == list(passages(" \n\n ")) == []
