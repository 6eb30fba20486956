"""What is known of one request at its end: for the access log and the metrics."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Record:
    """One request.

    Args:
        id: the client's x-request-id, or one of our own.
        key: the name of the key it came with; "-": none was asked for.
        model: that answered.
        prompt_tokens, new_tokens: read, and generated.
        finish: reason of each answer, or why there is none.
        content: prompt and answer, kept only for --log-content.
        first: seconds until the first token, or None.
        broken: an error that nobody foresaw was answered with 500.
    """

    id: str = field(default_factory=lambda: f"req_{secrets.token_hex(12)}")
    key: str = "-"
    model: str = "-"
    prompt_tokens: int = 0
    new_tokens: int = 0
    finish: list[str] = field(default_factory=list)
    content: dict[str, Any] = field(default_factory=dict)
    begin: float = field(default_factory=time.monotonic)
    first: float | None = None
    broken: bool = False

    @property
    def seconds(self) -> float:
        """Since it came."""
        return time.monotonic() - self.begin
