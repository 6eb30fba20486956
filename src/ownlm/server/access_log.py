"""One line a request on standard error; what was said in it stays out, unless that was asked for."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from starlette.types import Scope

from ownlm.console import output as out
from ownlm.server.record import Record

QUIET = ("/health", "/metrics")  # asked for every few seconds


class AccessLog:
    """Where requests are noted.

    Args:
        on: whether at all.
        content: prompts and answers too.
    """

    def __init__(self, *, on: bool = True, content: bool = False) -> None:
        self.on, self.content = on, content

    def write(self, scope: Scope, record: Record, status: int) -> None:
        """Note a request that has ended."""
        if not self.on or (scope["path"] in QUIET and status < 400):
            return
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        client = scope["client"][0] if scope.get("client") else "-"
        path = scope["path"][:200].encode("ascii", "backslashreplace").decode().replace(" ", "%20")
        first = "" if record.first is None else f" first={record.first:.3f}s"
        finish = f" finish={','.join(dict.fromkeys(record.finish))}" if record.finish else ""
        out.say(
            f"{now} {client} key={record.key} {scope['method']} {path} {status} model={record.model} "
            f"prompt={record.prompt_tokens} new={record.new_tokens}{finish}{first} {record.seconds:.3f}s id={record.id}",
            style="dim",
        )
        if self.content and record.content:
            shown = json.dumps(record.content, ensure_ascii=False, default=str)
            out.say(f"{record.id} {shown}".encode("utf-8", "replace").decode(), style="dim")
