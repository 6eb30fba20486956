"""Counts and times of a server, written in the text form of Prometheus; the names are those of vLLM."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ownlm.server.limits import Gate
    from ownlm.server.record import Record
    from ownlm.server.served import Models

SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)  # seconds
LONG = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)


class Histogram:
    """Counts of values by size."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.counts, self.total = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        """One more value."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str, labels: str) -> Iterable[str]:
        """Its samples."""
        seen = 0
        for bound, count in zip((*self.bounds, "+Inf"), self.counts):
            seen += count
            yield f'{name}_bucket{{{labels},le="{bound}"}} {seen}'
        yield f"{name}_sum{{{labels}}} {self.total}"
        yield f"{name}_count{{{labels}}} {seen}"


class Metrics:
    """What a server counts; everything but `step` is called in the event loop.

    Args:
        prefix: of all names, before a colon.
    """

    def __init__(self, prefix: str = "ownlm") -> None:
        self.prefix = prefix
        self.prompt_tokens = self.new_tokens = 0
        self.steps, self.step_tokens = 0, 0
        self.finished: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.time_to_first, self.inter_token, self.whole = Histogram(LONG), Histogram(SHORT), Histogram(LONG)
        self.queue_time = Histogram(LONG)
        self.prompt_sizes, self.answer_sizes = Histogram(TOKENS), Histogram(TOKENS)

    def step(self, tokens: int) -> None:
        """A step of the engine gave so many tokens."""
        self.steps += 1
        self.step_tokens += tokens

    def queued(self, seconds: float) -> None:
        """A request waited for its turn."""
        self.queue_time.add(seconds)

    def first_token(self, seconds: float) -> None:
        """From a request's arrival to its first token."""
        self.time_to_first.add(seconds)

    def between_tokens(self, seconds: float) -> None:
        """From one token of an answer to the next."""
        self.inter_token.add(seconds)

    def generated(self, record: Record, reasons: Sequence[str]) -> None:
        """A request that generates has ended."""
        self.prompt_tokens += record.prompt_tokens
        self.new_tokens += record.new_tokens
        self.prompt_sizes.add(record.prompt_tokens)
        self.answer_sizes.add(record.new_tokens)
        self.finished.update(reasons)

    def answered(self, status: int, seconds: float) -> None:
        """A request of any kind has ended."""
        self.statuses[status] += 1
        self.whole.add(seconds)

    def text(self, models: Models, gate: Gate) -> str:
        """Everything."""
        lines: list[str] = []
        labels = f'model_name="{models.first.name}",engine="0"'

        def add(name: str, kind: str, about: str, samples: Iterable[tuple[str, float]]) -> None:
            full = f"{self.prefix}:{name}"
            lines.extend((f"# HELP {full} {about}", f"# TYPE {full} {kind}"))
            lines.extend(f"{full}{{{labels}{extra}}} {value}" for extra, value in samples)

        def histogram(name: str, about: str, found: Histogram) -> None:
            full = f"{self.prefix}:{name}"
            lines.extend((f"# HELP {full} {about}", f"# TYPE {full} histogram", *found.lines(full, labels)))

        add("num_requests_running", "gauge", "Requests that are worked on.", [("", gate.running)])
        add("num_requests_waiting", "gauge", "Requests in the queue.", [("", gate.waiting)])
        usages = [driver.engine.usage for driver in models.drivers]
        blocks, used = sum(u.blocks for u in usages), sum(u.blocks_in_use for u in usages)
        add(
            "num_sequences_running",
            "gauge",
            "Sequences that the engine computes.",
            [("", sum(u.running for u in usages))],
        )
        add(
            "kv_cache_usage_perc",
            "gauge",
            "Share of the cache that is in use (1: all).",
            [("", used / blocks if blocks else 0.0)],
        )
        add(
            "num_preemptions_total",
            "counter",
            "Sequences that gave their cache back and were computed again.",
            [("", sum(u.preemptions for u in usages))],
        )
        add(
            "prefix_cache_hit_tokens_total",
            "counter",
            "Prompt tokens found in the cache.",
            [("", sum(u.prefix_tokens for u in usages))],
        )
        add(
            "prompt_tokens_total",
            "counter",
            "Prompt tokens of requests that generate.",
            [("", self.prompt_tokens)],
        )
        add("generation_tokens_total", "counter", "Generated tokens.", [("", self.new_tokens)])
        add("iterations_total", "counter", "Steps of the engine.", [("", self.steps)])
        add("iteration_tokens_total", "counter", "Events of these steps.", [("", self.step_tokens)])
        add("request_success_total", "counter", "Answers by the reason of their end.",
            [(f',finished_reason="{why}"', count) for why, count in sorted(self.finished.items())])  # fmt: skip
        add("http_requests_total", "counter", "Requests by the status of their answer.",
            [(f',status="{status}"', count) for status, count in sorted(self.statuses.items())])  # fmt: skip
        histogram("time_to_first_token_seconds", "From arrival to the first token.", self.time_to_first)
        histogram("inter_token_latency_seconds", "From one token of an answer to the next.", self.inter_token)
        histogram("e2e_request_latency_seconds", "From arrival to the end of the answer.", self.whole)
        histogram("request_queue_time_seconds", "Waiting for a turn.", self.queue_time)
        histogram("request_prompt_tokens", "Prompt tokens of a request.", self.prompt_sizes)
        histogram("request_generation_tokens", "Generated tokens of a request.", self.answer_sizes)
        return "\n".join(lines) + "\n"
