"""One thread drives the engine; everybody else hands it orders and is told what came of them.

Orders wait for the end of a step at most, so nothing of the engine holds up the event loop, and a request that nobody
wants any more is gone after the step that runs.
"""

from __future__ import annotations

import itertools
import threading
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from ownlm.console import output as out
from ownlm.console.errors import OwnlmError

if TYPE_CHECKING:
    from ownlm.engine.engine import Engine
    from ownlm.engine.requests import Event, Request


class News(NamedTuple):
    """What happened to an order.

    Args:
        ticket: from `Driver.submit`.
        what: None: the engine has taken it; an event of it; or why it ended.
    """

    ticket: int
    what: Event | OwnlmError | None


class Listener(Protocol):
    """Whom the driver tells; called in its thread, with all that a step brought."""

    def tell(self, news: list[News]) -> None:
        """Take news; must not wait."""


@dataclass
class _Order:
    kind: Literal["submit", "cancel"]
    ticket: int
    request: Request | None = None
    listener: Listener | None = None
    index: int | None = None


@dataclass
class _Running:
    """A request that the engine has."""

    ticket: int
    listener: Listener
    left: int
    ended: set[int] = field(default_factory=set)


class Stopping(OwnlmError):
    """The driver has ended, or will before it gets to the request."""

    def __init__(self) -> None:
        super().__init__("the server is stopping.")


class BrokenStep(OwnlmError):
    """A step of the engine failed in a way that nobody foresaw: everything that ran in it has ended."""


class Driver:
    """The thread that steps an engine.

    Args:
        engine: nobody else may step it.
        on_step: told after each step how many tokens it gave, in the driver's thread.
    """

    def __init__(self, engine: Engine, on_step: Callable[[int], None] = lambda tokens: None) -> None:
        self.engine, self._on_step = engine, on_step
        self._orders: list[_Order] = []
        self._wake = threading.Condition()
        self._stopping = False
        self._tickets = itertools.count(1)
        self._running: dict[int, _Running] = {}  # by the engine's number
        self._numbers: dict[int, int] = {}  # ticket -> the engine's number
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether orders are still obeyed."""
        return self._thread.is_alive() and not self._stopping

    @property
    def requests(self) -> int:
        """Requests that the engine has."""
        return len(self._numbers)

    def submit(self, request: Request, listener: Listener) -> int:
        """Order a request; gives the ticket that its news carry."""
        ticket = next(self._tickets)
        if not self._order([_Order("submit", ticket, request, listener)]):
            listener.tell([News(ticket, Stopping())])
        return ticket

    def cancel(self, tickets: Iterable[int], index: int | None = None) -> None:
        """End requests, or one sequence of each; nothing more is told of them."""
        self._order([_Order("cancel", ticket, index=index) for ticket in tickets])

    def stop(self) -> None:
        """End the thread after the step that runs; what it had is told to have ended."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _order(self, orders: list[_Order]) -> bool:
        with self._wake:
            if self._stopping:
                return False
            self._orders += orders
            self._wake.notify()
            return True

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._orders or self._numbers or self._stopping):
                    self._wake.wait()
                if self._stopping:
                    break
                orders, self._orders = self._orders, []
            self._told(self._obey(order) for order in orders)
            if self._numbers:
                self._step()
        self._end_all(Stopping())

    def _cancel(self, order: _Order) -> None:
        number = self._numbers.get(order.ticket)
        if number is None:
            return
        self.engine.cancel(number, order.index)
        running = self._running[number]
        if order.index is not None and order.index not in running.ended:
            running.ended.add(order.index)
            running.left -= 1
        if order.index is None or not running.left:
            self._forget(number)

    def _obey(self, order: _Order) -> tuple[Listener, News] | None:
        if order.kind == "cancel":
            self._cancel(order)
            return None
        assert order.request is not None
        assert order.listener is not None
        try:
            number = self.engine.submit(order.request)
        except OwnlmError as error:
            return order.listener, News(order.ticket, error)
        except Exception as error:  # the thread must go on for the others
            return order.listener, News(order.ticket, self._broken(error))
        self._numbers[order.ticket] = number
        self._running[number] = _Running(order.ticket, order.listener, order.request.settings.n)
        return order.listener, News(order.ticket, None)

    def _step(self) -> None:
        try:
            events = self.engine.step()
        except Exception as error:
            self._end_all(self._broken(error))
            return
        self._on_step(len(events))
        self._told(map(self._of, events))

    @staticmethod
    def _broken(error: Exception) -> BrokenStep:
        out.warn("the engine failed:\n" + "".join(traceback.format_exception(error)))
        return BrokenStep(f"the engine failed ({type(error).__name__}); what it was computing has ended.")

    def _of(self, event: Event) -> tuple[Listener, News] | None:
        running = self._running.get(event.request_id)
        if running is None:
            return None
        if event.finish_reason is not None:
            running.ended.add(event.index)
            running.left -= 1
            if not running.left:
                self._forget(event.request_id)
        return running.listener, News(running.ticket, event)

    @staticmethod
    def _told(given: Iterable[tuple[Listener, News] | None]) -> None:
        """Tell each listener once of all that is for it."""
        found: dict[int, tuple[Listener, list[News]]] = {}
        for one in given:
            if one is not None:
                found.setdefault(id(one[0]), (one[0], []))[1].append(one[1])
        for listener, news in found.values():
            listener.tell(news)

    def _forget(self, number: int) -> None:
        del self._numbers[self._running.pop(number).ticket]

    def _end_all(self, error: OwnlmError) -> None:
        if self._stopping:
            for order in self._orders:
                if order.listener is not None:
                    order.listener.tell([News(order.ticket, error)])
        for number, running in list(self._running.items()):
            self.engine.cancel(number)
            running.listener.tell([News(running.ticket, error)])
        self._running.clear()
        self._numbers.clear()
