"""Conversations on the page, in a real browser."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.browser import Seen, browser, seen, streamed
from tests.server.live import Live, live

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def server(chromium: Any, talker: Path) -> Iterator[Live]:
    with live(talker, chat_template=None) as found:
        yield found


@pytest.fixture
def page(chromium: Any, server: Live, tmp_path: Path) -> Iterator[Seen]:
    with seen(chromium, server.url, tmp_path) as found:
        yield found


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine whose answers last."""
    from ownlm.engine.engine import Engine

    step = Engine.step

    def slowly(self: Engine) -> Any:
        time.sleep(0.1)
        return step(self)

    monkeypatch.setattr(Engine, "step", slowly)


def words(article: Any) -> str:
    return article.locator(".words").inner_text()


def test_a_message_is_answered_and_everything_about_the_answer_can_be_seen(page, server):
    page.open()
    assert page.page.locator("nav a[aria-current]").inner_text() == "Chat"
    page.page.get_by_text("System prompt").click()
    page.page.fill("#system-prompt", "Be kind.")
    page.send("The quick")
    answer = page.answers(1).first
    figures = answer.locator(".figures").inner_text()
    assert "12 tokens" in figures
    assert "cut: as long as it may be" in figures
    assert re.search(r"mean log-probability -\d", figures)
    page.button("Tokens").click()
    tokens = answer.locator(".tokens .token")
    assert tokens.count() == 12
    tokens.nth(3).hover()
    assert "log-probability" in answer.locator(".alternatives").inner_text()
    assert answer.locator(".alternatives .bars li").count() == 8
    page.picture("chat-tokens")
    page.button("Prompt").click()
    page.page.wait_for_selector("pre.prompt span")
    rendered = server.ok(
        "/tokenize",
        messages=[{"role": "system", "content": "Be kind."}, {"role": "user", "content": "The quick"}],
    )
    assert page.page.locator("pre.prompt").text_content() == rendered["prompt"]
    assert "<|im_start|>system\nBe kind.<|im_end|>" in rendered["prompt"]
    page.button("curl").click()
    command = answer.locator(".details pre").text_content()
    body = json.loads(command[command.index("'") + 1 : -1])
    again = server.ok("/v1/chat/completions", **body)
    assert "".join(again["choices"][0]["message"]["content"].split()) == "".join(words(answer).split()), (
        "the same seed"
    )
    page.button("Python").click()
    assert "client.chat.completions.create(" in answer.locator(".details pre").text_content()


def test_an_answer_is_seen_while_it_is_written_and_stopped(page, slow):
    page.page.add_init_script("localStorage.setItem('ownlm.settings', '{\"max_tokens\": 90}')")
    page.open()
    page.send("The quick")
    page.page.wait_for_function(
        "() => document.querySelector('article.growing .words')?.innerText.length > 3"
    )
    assert page.page.locator("article.growing").get_attribute("aria-busy") == "true"
    page.page.keyboard.press("Escape")
    answer = page.answers(1).first
    assert "stopped by you" in answer.locator(".figures").inner_text()
    assert page.page.evaluate("document.activeElement.id") == "composer"
    page.button("New conversation").click()
    page.send("More")
    page.page.wait_for_function(
        "() => document.querySelector('article.growing .words')?.innerText.length > 3"
    )
    page.button("Stop").click()
    page.answers(1)


def test_a_stopped_answer_frees_the_engine(page, server, slow):
    page.page.add_init_script("localStorage.setItem('ownlm.settings', '{\"max_tokens\": 90}')")
    page.open()
    page.send("The quick")
    page.page.wait_for_function(
        "() => document.querySelector('article.growing .words')?.innerText.length > 3"
    )
    page.button("Stop").click()
    assert server.idle(5)


def test_another_answer_stands_beside_the_first(page):
    page.open()
    page.send("The quick")
    first = words(page.answers(1).first)
    page.button("Regenerate").click()
    page.page.wait_for_selector(".versions")
    second = words(page.answers(1).first)
    assert page.page.locator(".versions").inner_text().split() == ["‹", "2/2", "›"]
    page.button("The answer before").click()
    assert words(page.answers(1).first) == first
    page.button("The next answer").click()
    assert words(page.answers(1).first) == second


def test_an_edited_message_replaces_what_follows(page):
    page.open()
    page.send("The quick")
    page.answers(1)
    page.send("brown")
    page.answers(2)
    page.page.locator("article.user").first.hover()
    page.button("Edit").first.click()
    page.page.locator(".editor textarea").fill("A dog")
    page.page.keyboard.press("Enter")
    page.answers(1)
    assert page.page.locator("article.user").all_inner_texts()[0].startswith("A dog")
    assert page.page.locator("article.user").count() == 1


def test_a_conversation_is_there_after_the_page_is_loaded_again(page):
    page.open()
    page.send("The quick")
    answer = words(page.answers(1).first)
    page.page.reload()
    page.button("The quick").click()
    assert words(page.answers(1).first) == answer
    page.button("Tokens").click()
    assert "kept only until the page is closed" in page.page.locator(".details").inner_text()
    page.button("Delete this conversation").click()
    page.button("Delete?").click()
    assert page.page.locator(".conversations .open").count() == 0
    assert page.page.locator("article").count() == 0


def test_two_tabs_with_the_same_conversation_lose_nothing(page):
    page.open()
    page.send("The quick")
    page.answers(1)
    other = page.page.context.new_page()
    other.goto(page.url)
    other.get_by_role("button", name="The quick", exact=True).click()
    other.fill("#composer", "brown")
    other.keyboard.press("Enter")
    page.answers(2)
    assert page.page.locator("article.user .words").all_inner_texts() == ["The quick", "brown"]
    other.close()


def test_an_entry_that_is_damaged_is_said(page):
    page.page.add_init_script("localStorage.setItem('ownlm.conversation.x', '{')")
    page.open()
    page.page.get_by_text("1 stored conversations cannot be read.").wait_for()
    assert page.page.evaluate("localStorage.getItem('ownlm.conversation.x')") == "{"


EVIL = """<img src=x onerror="alert('image')"><script>alert('script')</script>
[click](javascript:alert('link')) [data](data:text/html,<script>alert(1)</script>) ![pic](https://evil.example/x.png)
<iframe srcdoc="<script>alert('frame')</script>"></iframe>

```html"onclick="alert(1)
<b onmouseover=alert('code')>code</b>
```

| a | <svg onload=alert('cell')> |
|---|---|
| `<u>x</u>` | **<i>bold</i>** |
"""


def test_what_a_model_or_a_user_writes_never_becomes_a_program(page):
    page.page.route("**/v1/chat/completions", lambda route: route.fulfill(**streamed(EVIL)))
    page.open()
    page.send(EVIL)
    page.answers(1)
    page.page.wait_for_timeout(300)
    assert (
        page.page.locator(
            "main img, main iframe, main script, main b, main u, main i, main [onerror], main [onload]"
        ).count()
        == 0
    )
    links = page.page.eval_on_selector_all(".thread a", "found => found.map(one => one.href)")
    assert links == ["https://evil.example/x.png"]
    assert "<script>alert('script')</script>" in page.page.locator("article.assistant").inner_text()
    assert "<script>alert('script')</script>" in page.page.locator("article.user").inner_text()
    assert page.page.locator("article.assistant table strong").inner_text() == "<i>bold</i>"
    page.picture("chat-injected")


MARKDOWN = """# Title
Some *soft*, **strong**, ~~gone~~ and `code *x*` words, snake_case_name, 2 * 3 * 4.

1. one
2. two
   - inner
   - [link](https://example.org/a_b)

> said
> twice

```python
def f(x):
    return "<b>" + x
```
---
| a | b |
|---|--:|
| 1 | 2 |
"""


def test_markdown(page):
    page.page.route("**/v1/chat/completions", lambda route: route.fulfill(**streamed(MARKDOWN)))
    page.open()
    page.send("x")
    answer = page.answers(1).first

    def texts(selector: str) -> list[str]:
        return answer.locator(f".words {selector}").all_inner_texts()

    assert texts("h3") == ["Title"]
    assert (texts("em"), texts("strong"), texts("del")) == (["soft"], ["strong"], ["gone"])
    assert texts("p code") == ["code *x*"]
    assert "snake_case_name, 2 * 3 * 4." in texts("p")[0]
    assert texts("ol > li > ul > li") == ["inner", "link"]
    assert texts("blockquote") == ["said\ntwice"]
    assert answer.locator("pre code").text_content() == 'def f(x):\n    return "<b>" + x'
    assert texts("td") == ["1", "2"]
    assert answer.locator("hr").count() == 1
    assert answer.locator("a").get_attribute("rel") == "noopener noreferrer nofollow"
    page.picture("chat-markdown")


def test_conversations_go_into_a_file_and_come_back(page, chromium, server, tmp_path):
    page.open()
    page.send("The quick")
    answer = words(page.answers(1).first)
    with page.page.expect_download() as download:
        page.button("Export").click()
    file = tmp_path / "conversations.json"
    download.value.save_as(file)
    assert json.loads(file.read_text(encoding="utf-8"))["format"] == "ownlm conversations 1"
    with seen(chromium, server.url, tmp_path) as other:
        other.open()
        for content, complaint in (
            ("{", "no JSON"),
            ('{"format": "x"}', "does not say"),
            (file.read_text(encoding="utf-8").replace('"role": "user"', '"role": "admin"'), "turns[0].role"),
        ):
            broken = tmp_path / "broken.json"
            broken.write_text(content, encoding="utf-8")
            other.page.set_input_files("input[type=file]", broken)
            other.page.get_by_text(complaint).wait_for()
        assert other.page.locator(".conversations .open").count() == 0
        other.page.set_input_files("input[type=file]", file)
        other.button("The quick").click()
        assert words(other.answers(1).first) == answer


def test_the_keyboard_is_enough(page):
    page.open()
    pressed = page.page.keyboard.press
    assert page.page.evaluate("document.activeElement.id") == "composer"
    page.page.keyboard.type("The quick")
    pressed("Shift+Enter")
    page.page.keyboard.type("fox")
    pressed("Enter")
    page.answers(1)
    assert page.page.locator("article.user .words").inner_text() == "The quick\nfox"

    def reach(name: str) -> None:
        for _ in range(60):
            pressed("Shift+Tab")
            if (
                page.page.evaluate("(document.activeElement.ariaLabel ?? document.activeElement.textContent)")
                == name
            ):
                return
        raise AssertionError(f"{name} is not reached")

    reach("Tokens")
    pressed("Enter")
    pressed("Tab")
    while "token" not in page.page.evaluate("document.activeElement.className"):
        pressed("Tab")
    pressed("ArrowRight")
    assert (
        page.page.evaluate("[...document.querySelectorAll('.tokens .token')].indexOf(document.activeElement)")
        == 1
    )
    assert page.page.locator(".alternatives .bars li").count() > 1
    reach("Settings")
    pressed("Enter")
    assert page.page.locator("aside.settings").is_visible()
    pressed("Escape")
    assert not page.page.locator("aside.settings").is_visible()
    assert page.page.evaluate("document.activeElement.ariaLabel") == "Settings"
    page.page.evaluate("document.activeElement.blur()")


def test_a_reader_hears_sentences_and_not_tokens(page):
    page.page.route(
        "**/v1/chat/completions", lambda route: route.fulfill(**streamed("One two. Three four! And five"))
    )
    page.open()
    page.page.evaluate(
        "window.heard = []; new MutationObserver(all => all.forEach(one => one.addedNodes.forEach(node => "
        "window.heard.push(node.textContent)))).observe(document.querySelector('body > .unseen'), {childList: true})"
    )
    page.send("x")
    page.answers(1)
    heard = page.page.evaluate("window.heard")
    assert heard[0] == "The model is answering."
    assert heard[-1].startswith("The answer has ended")
    assert "".join(heard[1:-1]) == "One two. Three four! And five"
    assert 4 <= len(heard) <= 5


def test_the_bars_follow_the_settings(page):
    page.open()
    page.page.fill("#composer", "The quick")
    page.button("Settings").click()
    bars = page.page.locator(".next-token .bars li")
    bars.first.wait_for()

    def shares() -> list[str]:
        return page.page.locator(".next-token .share").all_inner_texts()

    page.page.get_by_role("spinbutton", name="Temperature").fill("1")
    warm = shares()
    page.page.get_by_role("spinbutton", name="Temperature").fill("0.1")
    assert float(shares()[0].strip("%")) > float(warm[0].strip("%"))
    page.page.get_by_role("spinbutton", name="Temperature").fill("0")
    assert shares()[:2] == ["100%", "0.0%"]
    page.page.get_by_role("spinbutton", name="Temperature").fill("1")
    page.page.get_by_role("spinbutton", name="Top k").fill("2")
    assert [share == "0.0%" for share in shares()[:4]] == [False, False, True, True]
    page.picture("chat-settings")
    page.page.get_by_role("spinbutton", name="Temperature").fill("7")
    assert page.page.get_by_role("spinbutton", name="Temperature").get_attribute("aria-invalid") == "true"
    page.page.reload()
    page.page.wait_for_selector("nav a[aria-current]")
    assert page.page.evaluate("JSON.parse(localStorage.getItem('ownlm.settings')).top_k") == 2
    page.button("Settings").click()
    page.button("Back to the defaults").click()
    assert page.page.get_by_role("spinbutton", name="Top k").input_value() == "0"


def test_an_error_is_said_and_the_message_can_be_sent_again(page):
    page.open()
    page.page.fill("#composer", "word " * 300)
    page.page.keyboard.press("Enter")
    alert = page.page.locator(".thread .failed")
    alert.wait_for()
    assert "The context window holds 128 tokens" in alert.inner_text()
    page.errors.clear()  # the browser notes every answer of 400
    page.page.locator("article.user").hover()
    page.button("Edit").click()
    page.page.locator(".editor textarea").fill("The quick")
    page.button("Send again").click()
    page.answers(1)
