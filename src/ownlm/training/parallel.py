"""One run in several processes on one machine, as torchrun starts them: each computes a part of every step's rows.

The first process decides, writes and speaks; the others are told what to do (`follow.py`). Orders go through the store
that the processes meet at, sums through gloo on CPUs and NCCL on GPUs. An order may take any time to come, and a sum
fails at once when a process has ended, so nobody waits for one that is gone.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ownlm.console.errors import EXIT_BROKE, EXIT_INTERRUPTED, OwnlmError, SaidElsewhere
from ownlm.training.launched import place

BUCKET_BYTES = 25 * 2**20  # of gradients that are summed in one message, as in torch's DDP
TIMEOUT = timedelta(minutes=30)  # of one sum: longer than any process may lag behind the others
POLL_SECONDS = 0.01
FAREWELL_SECONDS = 2.0  # the first process may hold the store: the others read the last order before it goes
LOOPBACK = {"linux": "lo", "darwin": "lo0"}


class LostProcess(OwnlmError):
    """Another process of the run has ended in the middle of a step."""

    def __init__(self, why: str) -> None:
        super().__init__("another process has ended.", why=why)


@dataclass
class Processes:
    """The processes of a run, seen from one of them; without torchrun there is one, and nothing to agree on.

    Attributes:
        rank: of this process; 0 is the first.
        count: of all.
        store: where they meet; None for a single one.
        orders: how many the first process has given, or this one has read.
    """

    rank: int = 0
    count: int = 1
    store: dist.Store | None = None
    orders: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the one that decides, writes and speaks."""
        return self.rank == 0

    def device(self, device: str) -> str:
        """Where this process trains: each takes a GPU of its own."""
        return f"cuda:{self.rank}" if self.count > 1 and device == "cuda" else device

    def sum(self, *values: float) -> list[float]:
        """Each value summed over the processes, in fp64; the same numbers in all of them."""
        if self.count == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        _all_reduce(total)
        return [float(value) for value in total]

    def any(self, flag: bool) -> bool:
        """Whether one of the processes says so."""
        return self.sum(float(flag))[0] > 0

    @torch.no_grad()
    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum each parameter's gradient over the processes, in place.

        It runs once a step, after the last micro-batch, on what is in `.grad`: what computed the gradients does not
        matter. Whole gradients in every process are the one thing that sharded training (FSDP2) would do otherwise;
        it would take the place of this method.
        """
        if self.count == 1:
            return
        for bucket in _buckets([p.grad for p in parameters if p.grad is not None]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            _all_reduce(flat)
            for gradient, summed in zip(bucket, flat.split([gradient.numel() for gradient in bucket])):
                gradient.copy_(summed.view_as(gradient))

    def alone(self, work: Callable[[], None]) -> None:
        """The first process works, the others wait for it; its error ends them too."""
        if self.first:
            work()
            self.tell({"do": "go on"})
        else:
            self.told()

    def tell(self, order: Mapping[str, Any]) -> None:
        """The first process gives the others an order, in JSON."""
        if self.store is not None:
            self.store.set(str(self.orders), json.dumps(order))
            self.orders += 1

    def told(self) -> dict[str, Any]:
        """The next order of the first process.

        Raises:
            SaidElsewhere: it has ended with an error.
        """
        key = str(self.orders)
        while not self._store(lambda store: store.check([key])):
            time.sleep(POLL_SECONDS)
        order: dict[str, Any] = json.loads(self._store(lambda store: store.get(key)))
        self.orders += 1
        if "end" in order:
            raise SaidElsewhere(order["end"])
        return order

    def end(self, code: int) -> None:
        """The first process ends with an error: so do the others, at their next order or in their sum that fails."""
        with contextlib.suppress(RuntimeError):  # the store is gone with torchrun
            self.tell({"end": code})
            if self.store is not None:
                self.store.set("end", str(code))

    def end_code(self) -> int:
        """The exit code that the first process left, or that of something broken when it said none."""
        assert self.store is not None
        with contextlib.suppress(RuntimeError):
            if self.store.check(["end"]):
                return int(self.store.get("end"))
        return EXIT_BROKE

    def leave(self) -> None:
        """Close the connections; sums of others that still wait for this process fail now."""
        dist.destroy_process_group()
        with contextlib.suppress(RuntimeError), _deaf_to_torchrun():
            self._farewell()

    def _farewell(self) -> None:
        assert self.store is not None
        if not self.first:
            self.store.set(f"left {self.rank}", "")
            return
        others = [f"left {rank}" for rank in range(1, self.count)]
        until = time.monotonic() + FAREWELL_SECONDS
        while not self.store.check(others) and time.monotonic() < until:
            time.sleep(POLL_SECONDS)

    def _store(self, ask: Callable[[dist.Store], Any]) -> Any:
        assert self.store is not None
        try:
            return ask(self.store)
        except RuntimeError as error:
            raise LostProcess(_first_sentence(error)) from error


@contextmanager
def started() -> Iterator[Processes]:
    """The processes that torchrun started, joined; this one alone without it.

    Raises:
        UsageError: several processes that do not know of each other, or on several machines.
        SaidElsewhere: in all but the first, when that one ends with an error.
    """
    rank, count = place()
    if count == 1:
        yield Processes()
        return
    processes = _joined(rank, count)
    try:
        yield processes
    except BaseException as error:
        if processes.first:
            processes.end(_exit_code(error))
            raise
        if isinstance(error, LostProcess):
            raise SaidElsewhere(processes.end_code()) from error
        if isinstance(error, OwnlmError) and not isinstance(error, SaidElsewhere):
            raise OwnlmError(error.what, where=f"process {rank}", why=error.why, do=error.do) from error
        raise
    finally:
        processes.leave()


def _joined(rank: int, count: int) -> Processes:
    """The process group; sums of CPU tensors go through gloo also where the gradients are on GPUs."""
    if sys.platform in LOOPBACK:
        # Otherwise gloo looks for the address of the machine's name, which may have none.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK[sys.platform])
    store = dist.PrefixStore(f"ownlm {next(_runs())}", _meeting_place())
    on_gpus = torch.cuda.is_available() and dist.is_nccl_available()
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpus else "gloo", store=store, rank=rank, world_size=count, timeout=TIMEOUT
    )
    return Processes(rank, count, dist.PrefixStore("orders", store))


@functools.cache
def _meeting_place() -> dist.Store:
    """The store of all processes; one for the life of a program, which may train more than once."""
    store, _, _ = next(dist.rendezvous("env://"))
    return store


@functools.cache
def _runs() -> Iterator[int]:
    """0, 1, 2, … over the life of a program: the same in all processes."""
    return iter(range(sys.maxsize))


@contextmanager
def _deaf_to_torchrun() -> Iterator[None]:
    """When one process was killed, torchrun ends the others in a tenth of a second: too early to say what is kept."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _all_reduce(tensor: Tensor) -> None:
    try:
        dist.all_reduce(tensor)
    except RuntimeError as error:  # what torch.distributed raises is of this kind
        raise LostProcess(_first_sentence(error)) from error


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """Gradients in order, of one dtype, up to `BUCKET_BYTES` together."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        size = sum(other.nbytes for other in bucket) + gradient.nbytes
        if bucket and (size > BUCKET_BYTES or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


def _first_sentence(error: Exception) -> str:
    return str(error).split("\n")[0].split(". ")[0].rstrip(".") + "."


def _exit_code(error: BaseException) -> int:
    if isinstance(error, OwnlmError):
        return error.exit_code
    return EXIT_INTERRUPTED if isinstance(error, KeyboardInterrupt) else EXIT_BROKE
