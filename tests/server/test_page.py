"""The page beside its conversations, in a real browser: continuing, tasks, runs, languages, keys, a server that goes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ownlm.server.documents import Documents
from ownlm.server.runs import RunFolder
from tests.server.browser import Seen, browser, seen
from tests.server.live import Live, live

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def server(chromium: Any, model_folder: Path) -> Iterator[Live]:
    """Of a model that only continues text."""
    with live(model_folder, chat_template=None) as found:
        yield found


@pytest.fixture
def page(chromium: Any, server: Live, tmp_path: Path) -> Iterator[Seen]:
    with seen(chromium, server.url, tmp_path) as found:
        yield found


def test_a_model_that_continues_text_does_that_first(page):
    page.open()
    assert page.page.locator("nav a[aria-current]").inner_text() == "Continue"
    page.page.fill("#text", "The quick")
    page.page.keyboard.press("Control+Enter")
    page.page.locator(".below .figures").wait_for()
    first = page.page.input_value("#text")
    assert first.startswith("The quick")
    assert len(first) > len("The quick")
    page.button("Tokens").click()
    assert page.page.locator(".below .tokens .token").count() == 12
    page.picture("continue")
    page.button("Another one").click()
    page.page.wait_for_function("first => document.querySelector('#text').value !== first", arg=first)
    page.page.locator(".below .figures").wait_for()
    page.button("Take back").click()
    assert page.page.input_value("#text") == "The quick"
    page.page.get_by_role("link", name="Chat").click()
    assert "has no chat template" in page.page.locator(".notice").inner_text()
    assert page.page.locator("#composer").is_disabled()


def test_without_a_length_a_continuation_fits_the_window(chromium, server, tmp_path):
    with seen(chromium, server.url, tmp_path, settings={}) as page:
        page.open()
        page.page.fill("#text", "The quick")
        page.button("Continue").click()
        page.page.locator(".below .figures").wait_for()
        page.page.fill("#text", "word " * 300)
        page.button("Continue").click()
        page.page.get_by_text("nothing fits behind it").wait_for()


def test_the_tasks(page, tmp_path):
    page.open("tasks")
    page.button("Translate").first.click()
    page.page.locator(".tasks form").get_by_label("Text", exact=True).fill("The fox runs home.")
    page.page.locator(".tasks form button[type=submit]").click()
    page.page.locator(".result .figures, .result .failed").wait_for()
    assert "was not taught this task" in page.page.locator(".tasks form").inner_text()
    page.errors.clear()  # the small window holds no translation: 400
    page.button("Classify").first.click()
    page.page.locator(".tasks form").get_by_label("Text", exact=True).fill("The fox")
    page.page.get_by_label("Labels").fill("fox, dog，hen")
    page.page.locator(".tasks form button[type=submit]").click()
    page.page.locator(".result .bars li").first.wait_for()
    assert sorted(page.page.locator(".result .bars li > span:first-child").all_inner_texts()) == [
        "dog",
        "fox",
        "hen",
    ]
    shares = [float(share.strip("<%")) for share in page.page.locator(".result .share").all_inner_texts()]
    assert sum(shares) == pytest.approx(100, abs=2)
    page.picture("task-classify")


def test_an_answer_is_marked_in_its_text(page):
    answers = [
        {"answer": "🦊 fox", "score": 0.5, "start": 4, "end": 9},
        {"answer": "", "score": 0.2, "start": 0, "end": 0},
    ]
    body = json.dumps(
        {"object": "task.answer", "model": "run", "results": answers, "measured": None, "usage": {}}
    )
    page.page.route(
        "**/v1/tasks/answer", lambda route: route.fulfill(content_type="application/json", body=body)
    )
    page.open("tasks")
    page.button("Answer from a text").click()
    page.page.get_by_label("Text that holds").fill("The 🦊 fox <b>runs</b>.")
    page.page.get_by_label("Question").fill("Who?")
    page.page.keyboard.press("Enter")
    page.page.locator(".result mark").wait_for()
    assert page.page.locator(".result mark").inner_text() == "🦊 fox", "offsets count characters"
    assert page.page.locator(".result .quoted").inner_text() == "The 🦊 fox <b>runs</b>."


def test_a_folder_answers_with_its_sources(page, server, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "whales.md").write_text("Whales sing long songs below the ice.\n", encoding="utf-8")
    server.state.documents = Documents(tmp_path / "texts")
    page.open("tasks")
    assert page.page.locator("[aria-pressed=true]").inner_text() == "Answer from documents"
    page.page.get_by_label("Question").fill("What song do whales sing?")
    page.page.get_by_label("The answer is").select_option("passages")
    page.page.keyboard.press("Enter")
    page.page.locator(".passages li").first.wait_for()
    assert page.page.locator(".passages .source").inner_text().endswith("whales.md:1")
    page.page.get_by_label("Question").fill("How do volcanoes erupt?")
    page.button("Search").click()
    page.page.get_by_text("Documents searched: 1").wait_for()
    page.picture("task-documents")
    server.state.documents = None


def test_a_curve_grows_while_a_run_trains(page, server, model_folder, tmp_path):
    shutil.copytree(model_folder, tmp_path / "runs" / "first")
    shutil.copytree(model_folder, tmp_path / "runs" / "second")
    facts = json.loads((tmp_path / "runs" / "first" / "run.json").read_text(encoding="utf-8"))
    unfinished = facts | {"finished": False, "created": "2999-01-01T00:00:00+00:00"}
    (tmp_path / "runs" / "first" / "run.json").write_text(json.dumps(unfinished), encoding="utf-8")
    log = tmp_path / "runs" / "first" / "log.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    log.write_text("".join(lines[: len(lines) // 2]), encoding="utf-8")
    server.state.runs = RunFolder(tmp_path / "runs")
    page.open("runs")
    page.button("first").click()
    points = "() => document.querySelector('.curve .raw')?.getAttribute('points').split(' ').length ?? 0"
    page.page.wait_for_selector(".curve")
    before = page.page.evaluate(points)
    assert 0 < before < 20
    assert "not finished" in page.page.locator("tr", has_text="first").inner_text()
    with log.open("a", encoding="utf-8") as stream:
        stream.writelines(lines[len(lines) // 2 :])
    page.page.wait_for_function(f"({points})() === 20".join(["() => ", ""]))
    assert "step 20 of 20" in page.page.locator(".run .figures").inner_text()
    assert "at step 20" in page.page.locator(".curve").get_attribute("aria-label")
    page.picture("runs")
    with page.page.context.expect_page() as opened:
        page.page.get_by_role("link", name="Open the report").click()
    opened.value.wait_for_load_state()
    assert opened.value.evaluate("self.origin") == "null", "a report has nothing of the page's origin"
    page.page.goto("about:blank")
    server.state.runs = None
    page.open("runs")
    page.page.get_by_text("--runs FOLDER").wait_for()


def test_the_language_is_kept(page):
    page.open()
    page.page.get_by_label("Language").select_option("zh")
    assert page.page.locator("nav a[aria-current]").inner_text() == "续写"
    assert page.page.get_by_placeholder("从前").is_visible()
    page.page.reload()
    page.page.wait_for_selector("nav a[aria-current]")
    assert page.page.locator("nav a[aria-current]").inner_text() == "续写"
    assert page.page.evaluate("document.documentElement.lang") == "zh-Hans"
    page.button("设置").click()
    page.page.fill("#text", "春眠")
    page.page.locator(".next-token .bars li").first.wait_for()
    page.picture("chinese")


def test_a_browser_in_chinese_gets_chinese(chromium, server, tmp_path):
    with seen(chromium, server.url, tmp_path, locale="zh-CN", color_scheme="dark") as page:
        page.open()
        assert page.page.locator("nav a[aria-current]").inner_text() == "续写"
        page.picture("chinese-dark")


@pytest.mark.parametrize("view", ["chat", "continue", "tasks", "runs"])
def test_nothing_is_wider_than_a_phone(chromium, server, tmp_path, view):
    with seen(chromium, server.url, tmp_path, **PHONE) as page:
        page.open(view)
        wide = (
            "() => [...document.querySelectorAll('body *')].filter(one => (one.getBoundingClientRect().right > innerWidth + 1"
            " || one.getBoundingClientRect().left < -1)"
            " && one.checkVisibility() && !one.closest('.wide, pre, .unseen, .skip')).map(one => one.outerHTML.slice(0, 100))"
        )
        assert page.page.evaluate(wide) == []
        assert page.page.evaluate("document.documentElement.scrollWidth") == 360
        page.picture(f"phone-{view}")
        if view == "continue":
            page.button("Settings").click()
            assert page.page.evaluate(wide) == []
            page.button("Close").click()
            assert not page.page.locator("aside.settings").is_visible()


def test_everything_that_can_be_used_has_a_name(page):
    page.open()
    page.button("Settings").click()
    nameless = """() => [...document.querySelectorAll('button, a, input, select, textarea')].filter(one =>
        !(one.labels?.length || one.ariaLabel || one.textContent.trim() || one.title)).map(one => one.outerHTML)"""
    for view in ("chat", "continue", "tasks", "runs"):
        page.page.evaluate(f"location.hash = '#/{view}'")
        assert page.page.evaluate(nameless) == []


def test_a_key_is_asked_for_and_kept_in_the_tab(chromium, model_folder, tmp_path):
    locked = live(model_folder, keys={"alice": "a-long-secret"}, chat_template=None)
    with locked as server, seen(chromium, server.url, tmp_path) as page:
        page.page.goto(server.url)
        page.page.get_by_label("This server needs a key").fill("a-wrong-secret")
        page.page.keyboard.press("Enter")
        page.page.get_by_text("This key is not known.").wait_for()
        page.errors.clear()  # the browser notes every answer of 401
        page.page.get_by_label("This server needs a key").fill("a-long-secret")
        page.page.keyboard.press("Enter")
        page.page.wait_for_selector("nav a[aria-current]")
        assert page.page.evaluate("JSON.stringify(localStorage)").count("a-long-secret") == 0
        assert page.page.evaluate("sessionStorage.length") == 1
        page.page.fill("#text", "The")
        page.button("Continue").click()
        page.page.locator(".below .figures").wait_for()
        page.button("curl").click()
        snippet = page.page.locator(".details pre").inner_text()
        assert "$OWNLM_API_KEY" in snippet
        assert "a-long-secret" not in snippet
        page.page.reload()
        page.page.wait_for_selector("nav a[aria-current]")


def test_a_server_that_goes_and_comes_back(chromium, model_folder, tmp_path):
    with live(model_folder, chat_template=None) as server:
        port = int(server.url.rpartition(":")[2])
        context = seen(chromium, server.url, tmp_path)
        page = context.__enter__()
        page.open()
    page.page.fill("#text", "The quick")
    page.button("Continue").click()
    page.page.locator(".banner", has_text="does not answer").wait_for()
    assert page.page.input_value("#text") == "The quick"
    page.picture("server-gone")
    with live(model_folder, chat_template=None, port=port):
        page.page.locator(".banner.good").wait_for()
        page.errors.clear()  # the browser notes every connection that is refused
        page.button("Try again").click()
        page.page.locator(".below .figures").wait_for()
        context.__exit__(None, None, None)


def test_the_policy_lets_nothing_of_elsewhere_in(page, server):
    policy = server.client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    page.open()
    blocked = page.page.evaluate(
        "() => new Promise(done => { addEventListener('securitypolicyviolation', event => done(event.violatedDirective));"
        " const script = document.createElement('script'); script.textContent = 'window.x = 1'; document.body.append(script); })"
    )
    assert blocked.startswith("script-src")
    assert page.page.evaluate("window.x") is None
    page.errors.clear()
