"""What every test shares: no network, and small corpora and runs made by the code under test."""

from __future__ import annotations

import os
import random
import re

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tests.network import isolate

NETWORK = isolate()  # before anything starts a thread: a namespace belongs to the thread that enters it

from collections.abc import Iterator
from pathlib import Path

import pytest

from ownlm.kernels import inference


@pytest.fixture(params=inference.LEVELS)
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set of the inference kernels in turn."""
    with inference.at_level(request.param) as used:
        if used != request.param:
            pytest.skip(f"this processor has no {request.param}")
        yield used


def pytest_report_header() -> str:
    return NETWORK


TALES = {
    "fox.txt": "The {quality} {quality} {animal} {jumps} over the {quality} {animal}. "
    "The {animal} {jumps}, and the {animal} {jumps} {home}.\n",
    "river.txt": "A {quality} {river} {jumps} to the {sea}. {rain} {falls} on the {sea}, and the {animal} {jumps} {home}.\n",
    "春.txt": "{春眠}{不觉晓}，{春眠}{闻啼鸟}。{春眠}{风雨声}，{春眠}{知多少}。\n",
}
WORDS = {
    "quality": "quick brown lazy old small wild red calm dark young cold proud shy grey tall kind",
    "animal": "fox dog hare owl bear cat crow goat wolf lamb mouse horse duck seal toad hen",
    "jumps": "runs jumps sleeps waits sings turns hides rests climbs falls walks calls drinks moves stops swims",
    "home": "home again north alone away there south first today early below inside late down back now",
    "river": "river stream brook path cloud road wind boat",
    "sea": "sea lake hills valley town forest bridge coast garden field island harbour meadow mill shore tower",
    "rain": "Rain Snow Hail Dust Light Night Frost Fog",
    "falls": "falls lies shines comes waits stays rolls drifts",
    "春眠": "春眠 处处 夜来 花落 白日 黄河 千山 万径 孤舟 床前 举头 低头 红豆 空山 明月 清泉 松间 石上 空江 远寺 寒山 古木 小楼 高台",
    "不觉晓": "不觉晓 依山尽 入海流 鸟飞绝 人踪灭 蓑笠翁 寒江雪 明月光 望明月 思故乡 南国生 来几枝",
    "闻啼鸟": "闻啼鸟 疑是霜 更上楼 穷千里 多采撷 最相思 不见人 闻人语 返景入 照青苔 松风起 竹影长",
    "风雨声": "风雨声 古道边 荒城外 晚钟远 长亭暮 渔火明 孤帆尽 江水平 草木深 雁南飞 客心惊 柳丝轻",
    "知多少": "知多少 问归期 入梦迟 待谁来 几时回 共此灯 又一年 满人间 照无眠 不须归 天地间 水云间",
}  # fmt: skip


def tale(name: str, number: int) -> str:
    """A numbered line of a text; the words differ from line to line, so that no 13 tokens are there again and again."""
    draw = random.Random(f"{name} {number}")
    words = re.sub(r"{(\w+)}", lambda slot: draw.choice(WORDS[slot[1]].split()), TALES[name])
    return f"{number}: {words}"


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three short texts of 120 lines."""
    folder = tmp_path_factory.mktemp("texts")
    for name in TALES:
        lines = (tale(name, number) for number in range(120))
        (folder / name).write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def corpus(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared corpus of the small texts (vocabulary 400)."""
    import ownlm

    path = tmp_path_factory.mktemp("corpus") / "corpus"
    ownlm.prepare([str(text_folder)], output=path, vocab_size=400)
    return path


@pytest.fixture(scope="session")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 30 steps of a very small model on the small corpus."""
    import ownlm

    path = tmp_path_factory.mktemp("run") / "run"
    ownlm.pretrain(corpus, output=path, max_steps=30, **TINY)
    return path


TINY = {
    "size": "1M",
    "context": 32,
    "set": ["num_hidden_layers=2", "hidden_size=64", "intermediate_size=128"],
    "per_device_train_batch_size": 8,
    "dtype": "float32",
    "threads": 1,
}


@pytest.fixture(scope="session")
def talker(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 steps that looks as if it were taught to chat (chatml, a window of 128)."""
    import json

    import ownlm
    from ownlm.tasks.templates import BUILT_IN, FILE

    path = tmp_path_factory.mktemp("talker") / "talker"
    ownlm.pretrain(corpus, output=path, max_steps=20, **(TINY | {"context": 128}))
    (path / FILE).write_text(BUILT_IN["chatml"], encoding="utf-8")
    run_json = json.loads((path / "run.json").read_text(encoding="utf-8"))
    taught = {"taught": ["continues text", "chat"]}
    (path / "run.json").write_text(json.dumps(run_json | taught), encoding="utf-8")
    return path


@pytest.fixture
def tiny() -> dict[str, object]:
    """Settings of a model that trains in a second or two."""
    return dict(TINY)
