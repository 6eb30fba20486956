"""A real browser without a window, and what tests of the page do in it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SHORT = {"temperature": 0.8, "max_tokens": 12}  # settings with which the small model's window is not filled
PATIENCE = 60_000  # milliseconds: a machine that tests run on may be busy


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium, started; the test is skipped, with its reason, where it or playwright is missing."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="no playwright here (pip install 'ownlm[clients]')"
    )
    if CHROMIUM is None:
        pytest.skip("no chromium here (apt-get install chromium)")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield found
        found.close()


class Seen:
    """A page that is open in the browser.

    Attributes:
        page: of playwright. errors: what the console and scripts complained of; the test fails on any.
    """

    def __init__(self, context: Any, url: str, pictures: Path) -> None:
        self.page, self.url, self.errors = context.new_page(), url, []  # type: Any, str, list[str]
        self._pictures = pictures
        self.page.set_default_timeout(PATIENCE)
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.errors.append(dialog.message), dialog.dismiss()))

    def _heard(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} {message.location}")

    def open(self, view: str = "") -> None:
        self.page.goto(f"{self.url}/{f'#/{view}' if view else ''}")
        self.page.wait_for_selector("nav a[aria-current]")

    def button(self, name: str) -> Any:
        return self.page.get_by_role("button", name=name, exact=True)

    def send(self, text: str) -> None:
        self.page.fill("#composer", text)
        self.page.keyboard.press("Enter")

    def answers(self, count: int) -> Any:
        """The answers of the conversation, when so many of them have ended."""
        found = self.page.locator("article.assistant:not(.growing)")
        self.page.wait_for_function(
            "n => document.querySelectorAll('article.assistant:not(.growing)').length === n "
            "&& !document.querySelector('article.growing')",
            arg=count,
        )
        return found

    def picture(self, name: str) -> None:
        """Keep what is seen, in the folder of OWNLM_SCREENSHOTS or in that of the test."""
        folder = Path(os.environ.get("OWNLM_SCREENSHOTS") or self._pictures)
        folder.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=folder / f"{name}.png")


@contextmanager
def seen(
    started: Any, url: str, pictures: Path, settings: dict[str, Any] | None = None, **options: Any
) -> Iterator[Seen]:
    """A page in a browser that remembers nothing; what its console complained of fails the test.

    Args:
        options: of the browser's context, such as its viewport or locale.
    """
    options = {"viewport": {"width": 1280, "height": 860}, "locale": "en-US"} | options
    context = started.new_context(**options)
    stored = json.dumps(json.dumps(SHORT if settings is None else settings))
    context.add_init_script(
        f"self.origin === 'null' || localStorage.getItem('ownlm.settings') || localStorage.setItem('ownlm.settings', {stored})"
    )
    found = Seen(context, url, pictures)
    yield found
    context.close()
    assert found.errors == [], found.errors


def streamed(text: str) -> dict[str, Any]:
    """An answer of /v1/chat/completions with a given text, a few characters an event."""
    pieces = [text[at : at + 7] for at in range(0, len(text), 7)]
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "run"}
    frames = [
        {**head, "choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]}
        for piece in pieces
    ]
    frames.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    body = "".join(f"data: {json.dumps(frame)}\n\n" for frame in frames) + "data: [DONE]\n\n"
    return {"status": 200, "content_type": "text/event-stream; charset=utf-8", "body": body}
