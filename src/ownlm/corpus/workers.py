"""Worker processes: tasks in, results out in the tasks' order; none at all for small work."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from ownlm.console.errors import OwnlmError

Task = TypeVar("Task")
Result = TypeVar("Result")

# Below this much text one process, with a thread that decompresses, is as quick as several: 18 MB of short Chinese
# documents take it 2.4 s, two copies of it 2.0 s, two new processes (imports, tokenizers: 0.8 s of CPU) 2.3 s.
ONE_PROCESS = {"fork": 4 * 2**20, "spawn": 32 * 2**20}  # bytes of text by the way in which processes start
POLL_SECONDS = 0.2  # how often the progress line hears from the workers
AHEAD = 2  # tasks in flight per worker: it is never idle, and few results wait for their turn


def cores() -> int:
    """CPU cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def ahead(items: Iterable[Task]) -> Iterator[Task]:
    """The same items, each made in a thread while the one before it is worked on.

    Args:
        items: made by code that lets other threads run, as decompression does, and that never waits for
            somebody else: stopping waits for the item that is being made.
    """
    remaining = iter(items)
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, remaining, _END)
        while (item := coming.result()) is not _END:
            coming = thread.submit(next, remaining, _END)
            yield item


def start_method() -> str:
    """How processes start: a copy of this one costs 10 ms, a new one imports the package again (0.4 s of CPU).

    A copy is safe only where no other thread exists: a lock that such a thread holds would stay locked in the
    copy for ever. torch starts threads of its own. Workers behave alike either way.
    """
    alone = sys.platform == "linux" and threading.active_count() == 1 and "torch" not in sys.modules
    return "fork" if alone else "spawn"


class Workers:
    """A pool of processes, started with the first task; used as a context manager.

    Args:
        count: processes; 1 runs everything in this process.
    """

    def __init__(self, count: int) -> None:
        self.count = max(count, 1)
        self._pool: ProcessPoolExecutor | None = None
        self._others = {child.pid for child in multiprocessing.active_children()}
        context: Any = multiprocessing.get_context(start_method())
        self._counter = context.Value("q", 0) if self.count > 1 else None
        self._seen = 0
        if self.count > 1:
            self._pool = ProcessPoolExecutor(self.count, context, _begin, (self._counter,))

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: object) -> None:
        if self._pool is None:
            return
        if (
            kind is not None
        ):  # what a worker has not renamed into place counts as not done: it may stop anywhere
            for child in multiprocessing.active_children():
                if child.pid not in self._others:
                    child.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def map(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        advance: Callable[[int], None] = lambda amount: None,
    ) -> Iterator[Result]:
        """Results in order.

        Args:
            function: a module-level function; it may call `advance(amount)` of this module.
            tasks: taken a few at a time.
            advance: called in this process with the amounts that the workers reported.
        """
        if self._pool is None:
            yield from _map_here(function, tasks, advance)
            return
        waiting: deque[Future[Result]] = deque()
        remaining = iter(tasks)
        try:
            while True:
                while len(waiting) < AHEAD * self.count:
                    task = next(remaining, _END)
                    if task is _END:
                        break
                    waiting.append(self._submit(function, task))
                if not waiting:
                    return
                yield self._result(waiting.popleft(), advance)
        except BrokenProcessPool:
            raise OwnlmError(
                "a worker process died.",
                why="Most often the memory was full. What was complete is kept.",
                do="the same command with --workers 1: it goes on where it stopped",
            ) from None

    def _submit(self, function: Callable[[Task], Result], task: Any) -> Future[Result]:
        assert self._pool is not None
        with _anonymous_main():
            return self._pool.submit(function, task)

    def _result(self, future: Future[Result], advance: Callable[[int], None]) -> Result:
        while True:
            try:
                result = future.result(POLL_SECONDS)
            except TimeoutError:
                if future.done():
                    raise
                advance(self._progress())
                continue
            advance(self._progress())
            return result

    def _progress(self) -> int:
        assert self._counter is not None
        now = self._counter.value
        amount, self._seen = now - self._seen, now
        return int(amount)


_END: Any = object()
_report: Callable[[int], None] = lambda amount: None  # noqa: E731 - replaced in workers and by `_map_here`


def advance(amount: int) -> None:
    """Called inside a task: so much more is done."""
    _report(amount)


def _map_here(
    function: Callable[[Task], Result], tasks: Iterable[Task], report: Callable[[int], None]
) -> Iterator[Result]:
    global _report
    for task in tasks:
        before, _report = _report, report
        try:
            result = function(task)
        finally:
            _report = before
        yield result


@contextlib.contextmanager
def _anonymous_main() -> Iterator[None]:
    """Inside it `__main__` is an empty module.

    A spawned process imports the parent's main script; one that calls `ownlm.prepare` at its top level would
    run again in every worker. The tasks here are functions of this package, so the script is not needed.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _begin(counter: Any) -> None:
    """First thing in a worker: leave Ctrl-C to the parent, end when the parent is gone, report progress."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def report(amount: int) -> None:
        with counter.get_lock():
            counter.value += amount

    global _report
    _report = report


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        time.sleep(0.1)
        os._exit(1)  # killed parents cannot say goodbye; an orphan would wait for tasks for ever
