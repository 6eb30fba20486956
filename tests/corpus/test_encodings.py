from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ownlm.corpus.encodings import NotText, Utf8Stream, decode, detect

SIMPLIFIED = """今天天气很好，我们一起去公园散步吧。
他昨天晚上加班到十二点才回家。
请把这份合同翻译成英文，明天上午交给我。
数据库连接失败，请检查网络设置。
深度学习模型需要大量的训练数据和计算资源。
患者主诉头痛三天，伴有恶心和呕吐。
本公司成立于一九九八年，总部位于上海。
小明，你的作业写完了吗？
函数返回值必须是整数类型，否则抛出异常。
红烧肉的做法：先把五花肉切块焯水。
这家酒店服务态度差，隔音效果也不好。
甲方应于收到发票后三十日内付款。
长江是中国最长的河流。
学而时习之，不亦说乎？
孩子们在操场上踢足球，笑声不断。
火车票已经卖完了，我们只能坐飞机去。
经济增长速度放缓，就业压力加大。
她轻轻推开窗户，看见远处的雪山。""".splitlines()

TRADITIONAL = """今天天氣很好，我們一起去公園散步吧。
請把這份合約翻譯成英文，明天上午交給我。
資料庫連線失敗，請檢查網路設定。
深度學習模型需要大量的訓練資料和計算資源。
患者主訴頭痛三天，伴有噁心和嘔吐。
臺灣的夜市小吃聞名世界。
函式的回傳值必須是整數，否則會拋出例外。
這家餐廳的牛肉麵非常好吃，價格也很便宜。
捷運站旁邊開了一間新的書店。
憲法保障人民的言論自由。
經濟成長速度趨緩，就業壓力增加。
她輕輕推開窗戶，看見遠處的雪山。""".splitlines()

WESTERN = """Schöne Grüße aus München, wir hätten gern drei Brötchen.
Die Prüfung fällt aus.
Où est la bibliothèque ? À côté de l'école.
L'été dernier, nous avons mangé des crêpes à la fête.
Straße
# Größe prüfen
señor, ¿dónde está el baño?
“smart quotes” — and a dash…
prix: 20 € la pièce
Ein Kunststück auf dem Skateboard
Fußgängerübergänge
for (int i = 0; i < n; i++) { /* Länge zählen */ }""".splitlines()

CODE = "def größe(text):\n    return len(text)  # Länge in Zeichen, für Übersichten\n" * 3


@pytest.mark.parametrize("text", SIMPLIFIED)
@pytest.mark.parametrize("codec", ["gb18030", "gb2312"])
def test_simplified_chinese_in_gb(text: str, codec: str) -> None:
    assert decode(text.encode(codec)).text == text


@pytest.mark.parametrize("text", TRADITIONAL)
@pytest.mark.parametrize("codec", ["big5", "gb18030"])
def test_traditional_chinese_in_big5_and_gbk(text: str, codec: str) -> None:
    decoded = decode(text.encode(codec))
    assert (decoded.text, decoded.encoding) == (text, codec)


@pytest.mark.parametrize("text", [*WESTERN, CODE])
def test_western_text_in_latin_1(text: str) -> None:
    decoded = decode(text.encode("cp1252"))
    assert decoded.text == text
    assert decoded.encoding == ("cp1252" if set("“”—…€") & set(text) else "latin-1")


@pytest.mark.parametrize("text", [SIMPLIFIED[0], TRADITIONAL[3], WESTERN[0], CODE, "plain ASCII"])
@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_unicode_with_marks(text: str, codec: str) -> None:
    assert decode(text.encode(codec)).text == text
    assert decode(b"\xfe\xff" + text.encode("utf-16-be")).text == text


@pytest.mark.parametrize(
    "text", [f"{s}\n" for s in (SIMPLIFIED[0], TRADITIONAL[3], WESTERN[0], CODE, "ASCII")]
)
@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_wide_characters_without_a_mark(text: str, codec: str) -> None:
    assert detect(text.encode(codec)) == codec


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(SIMPLIFIED), min_size=2, max_size=6),
    st.sampled_from(["", "x = 1\n", "<p>ok</p>\n"]),
)
def test_any_mixture_of_sentences_and_ascii(sentences: list[str], between: str) -> None:
    text = between.join(sentences)
    assert decode(text.encode("gb18030")).text == text
    assert decode(text.encode("utf-8")).text == text


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x01\x00",
        b"\x7fELF\x02\x01\x01\x00\x00\x00",
        random.Random(0).randbytes(4000),
        bytes(range(1, 32)) * 10,
    ],
)
def test_binary_content_is_refused(data: bytes) -> None:
    with pytest.raises(NotText):
        decode(data)


RUSSIAN = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему. "
KOREAN = (
    "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 천부적으로 이성과 양심을 "
)
JAPANESE = "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。"


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8-r"),
        (KOREAN, "euc-kr"),
        (JAPANESE, "euc-jp"),
        (JAPANESE, "shift_jis"),
    ],
)
def test_other_encodings_are_refused_not_misread(text: str, codec: str) -> None:
    with pytest.raises(NotText, match="not recognised"):
        decode((text * 4).encode(codec))


def test_a_broken_byte_in_utf8_is_replaced_and_counted() -> None:
    data = ("\n".join(SIMPLIFIED) * 5).encode()
    broken = data[:300] + b"\xff" + data[300:]
    decoded = decode(broken)
    assert decoded.encoding == "utf-8"
    assert decoded.replaced >= 1
    assert decoded.text.replace("\ufffd", "")[:90] == data.decode()[:90]


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "gb18030", "big5"]),
    st.integers(0, 20_000),
    st.integers(1, 9000),
)
def test_a_stream_in_chunks_of_any_size_reads_as_the_whole(codec: str, ascii_before: int, size: int) -> None:
    text = "a line of code\n" * (ascii_before // 15) + "\n".join(TRADITIONAL)
    data = text.encode(codec)
    stream = Utf8Stream(data[i : i + size] for i in range(0, len(data), size))
    assert b"".join(stream).decode().removeprefix("\ufeff") == text


def test_a_long_ascii_start_does_not_decide_the_encoding() -> None:
    text = "ascii only\n" * 200_000 + "\n".join(SIMPLIFIED)
    stream = Utf8Stream(iter([text.encode("gb18030")[:1_000_000], text.encode("gb18030")[1_000_000:]]))
    assert b"".join(stream).decode() == text
    assert stream.encoding == "gb18030"
