from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest

from ownlm.corpus.readers.html import page_text
from tests.corpus.conftest import Read


def test_text_only_with_block_breaks_and_entities() -> None:
    page = """<!doctype html><html><head><title>Tea &amp; cake</title><style>p {color: red}</style>
    <script>document.write("<p>no</p>")</script></head><body>
    <h1>One  <b> bold</b> title</h1><p>first
    line<br>second&nbsp;line &lt;tag&gt; &#22825;</p><ul><li>a<li>b</ul>
    <table><tr><td>1</td><td>2</td></tr><tr><th>3</th><th>4</th></tr></table>
    <pre>
  def f():
      return 1
</pre><noscript>enable it</noscript><svg><text>drawn</text></svg>end<!-- comment --></body></html>"""
    assert page_text(page) == (
        "Tea & cake\n\nOne bold title\n\nfirst line\nsecond\xa0line <tag> 天\n\na\nb\n\n1\t2\n3\t4\n\n"
        "\n  def f():\n      return 1\n\n\nend"
    )


@pytest.mark.parametrize("page", ["a < b and c > d", "just words", "<p>open", "x <3 y"])
def test_markup_that_is_none(page: str) -> None:
    assert page_text(page) == page.removeprefix("<p>")


@pytest.mark.parametrize(
    "piece", ["<!--", "<a", '<a b="', "<![CDATA[", "</", "<?", "&#", "<script>", "<a b='", "<!a"]
)
@pytest.mark.parametrize("end", ["", ">", '">x'])
def test_crafted_pages_cost_linear_time(piece: str, end: str) -> None:
    start = time.process_time()
    with contextlib.suppress(ValueError):
        page_text(piece * 20_000 + end)
    assert time.process_time() - start < 3


def test_files(tmp_path: Path, read: Read) -> None:
    (tmp_path / "a.html").write_bytes("<p>你好，世界。今天天气很好。</p>".encode("gb18030"))
    declared = '<meta http-equiv="Content-Type" content="text/html; charset=windows-1251"><p>Привет, мир</p>'
    (tmp_path / "b.htm").write_bytes(declared.encode("cp1251"))
    (tmp_path / "c.html").write_text("<script>only()</script>")
    (tmp_path / "d.html").write_text("<p>text</p><![broken <p>")
    (tmp_path / "e.html").write_text('<meta charset="unicode_escape"><p>\\u0041</p>')
    documents, dropped = read(tmp_path)
    assert [(d.text, d.kind, d.encoding) for d in documents] == [
        ("你好，世界。今天天气很好。", "html", "gb18030"),
        ("Привет, мир", "html", "windows-1251"),
        ("\\u0041", "html", "utf-8"),
    ]
    assert [d.reason for d in dropped] == ["empty text", "broken HTML"]
