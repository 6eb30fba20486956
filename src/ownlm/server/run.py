"""From a model to a server that runs: its socket, its signals, its end."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from ownlm.console import output as out
from ownlm.console.errors import OwnlmError, UsageError
from ownlm.server.call import State

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 30
LAST_WORDS_SECONDS = 0.1  # in which streams that are broken off are told so


def listen(host: str, port: int, again: Callable[[int], str]) -> socket.socket:
    """A socket that clients can connect to; whoever comes before the model is there waits.

    Args:
        port: 0: a free one.
        again: the command with another port.

    Raises:
        OwnlmError: the port is taken. UsageError: no such address, or it needs rights.
    """
    if not 0 <= port < 65536:
        raise UsageError("ports lie between 0 and 65535.", where=f"--port {port}", do=again(8000))
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"no address of this machine: {error}.", where=f"--host {host} --port {port}"
        ) from None
    found = socket.socket(family, kind, protocol)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(BACKLOG)
    except OSError as error:
        found.close()
        if error.errno == errno.EADDRINUSE:
            raise OwnlmError(
                "another program answers at this port already.", where=f"{host}:{port}", do=again(port + 1)
            ) from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise UsageError(
                "a port below 1024 needs rights.", where=f"--port {port}", do=again(8000)
            ) from None
        raise UsageError(f"not possible: {error.strerror}.", where=f"--host {host}", do=again(port)) from None
    found.setblocking(False)
    return found


def is_loopback(address: str) -> bool:
    """Whether only programs of this machine reach an address."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


class Server(uvicorn.Server):
    """uvicorn, where the first signal lets requests end and the second one does not."""

    def __init__(self, config: uvicorn.Config, state: State) -> None:
        super().__init__(config)
        self._state = state
        self.aborted = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called at SIGINT and SIGTERM."""
        if self.should_exit:
            self.aborted = self.force_exit = True
            return
        self.should_exit = True
        self._state.gate.draining = True
        left = self._state.gate.running + self._state.gate.waiting
        if left:
            out.say(
                f"stopping: {left} requests end first. Once more ({signal.Signals(sig).name}) breaks them off."
            )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let requests end; when that is broken off, end them in the engine too."""
        await super().shutdown(sockets)
        if self.force_exit:
            for driver in self._state.models.drivers:
                driver.stop()
            await asyncio.sleep(LAST_WORDS_SECONDS)
            for task in list(self.server_state.tasks):
                task.cancel()


def made(app: ASGIApp, state: State) -> Server:
    """A server that is not started yet."""
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        backlog=BACKLOG,
    )
    return Server(config, state)


def serve(app: ASGIApp, state: State, sock: socket.socket) -> bool:
    """Serve until a signal ends it; False when requests were broken off."""
    server = made(app, state)
    try:
        server.run(sockets=[sock])
    finally:
        state.close()
        sock.close()
    return not server.aborted
