"""`ownlm serve`: a model behind the interface of OpenAI's, for clients and for people."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ownlm.console import output as out
from ownlm.console.errors import Interrupted, UsageError
from ownlm.console.settings import verb

if TYPE_CHECKING:
    from ownlm.server.call import State
    from ownlm.server.documents import Documents

KEY_VARIABLE = "OWNLM_API_KEY"
SHORTEST_KEY = 8


@verb
def serve(
    model: Any,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str | None = None,
    adapter: list[str] = [],  # noqa: B006 - pydantic copies the default
    chat_template: str | None = None,
    api_key: list[str] = [],  # noqa: B006
    allow_host: list[str] = [],  # noqa: B006
    cors_origin: list[str] = [],  # noqa: B006
    max_concurrent: int = 64,
    max_queue: int = 256,
    max_new_tokens: int | None = None,
    max_body_bytes: int = 8_000_000,
    timeout: float = 600.0,
    max_context: int | None = None,
    log_content: bool = False,
    runs: Path | None = None,
    documents: Path | None = None,
    metrics_prefix: str = "ownlm",
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16", "int8", "int4"] = "auto",
) -> None:
    """Serve a model over HTTP, as OpenAI's clients expect it, and a page for people.

    Every field of a request is honoured, has no effect by definition, or is answered with an error that names it.
    Ctrl-C or SIGTERM lets requests end; a second one breaks them off. Requests are noted on standard error (not
    with --quiet), without what was said in them.

    Args:
        model: a run or checkpoint folder, `last` (the newest run below this folder), or a name on the hub.
        host: address to listen at; 0.0.0.0 for all of this machine's.
        port: to listen at; 0: a free one, which is said.
        name: what requests call the model; without it the name of its folder.
        adapter: a further model NAME=FOLDER: an adapter over the same base; may be repeated.
        chat_template: for a model without one: chatml, alpaca, or a file with a Jinja template.
        api_key: KEY or NAME:KEY that requests must carry; may be repeated. Better in OWNLM_API_KEY, with commas.
        allow_host: a name under which this server is reached, beside addresses and localhost; may be repeated.
        cors_origin: a web page's origin (https://name) whose scripts may ask; may be repeated; *: any.
        max_concurrent: requests that are worked on at the same time.
        max_queue: further requests that wait; more are answered with 429.
        max_new_tokens: tokens of an answer at most; without it as many as the window holds.
        max_body_bytes: of a request.
        timeout: seconds for a request, waiting included.
        max_context: a smaller context window than the model was made for.
        log_content: note prompts and answers too.
        runs: a folder whose runs the page shows: their curves while they train, and their reports.
        documents: a file, folder or corpus from which /v1/tasks/search answers questions.
        metrics_prefix: of the names in /metrics; vllm for dashboards made for it.
        device: cpu, cuda, mps, or auto.
        dtype: float32, bfloat16, int8, int4 (on a CPU), or auto: as the model is stored.
    """
    for option, value, least in (
        ("--max-concurrent", max_concurrent, 1), ("--max-queue", max_queue, 0), ("--timeout", timeout, 0.1),
        ("--max-body-bytes", max_body_bytes, 1000), ("--max-new-tokens", 1 if max_new_tokens is None else max_new_tokens, 1),
    ):  # fmt: skip
        if value < least:
            raise UsageError(f"{value} is not possible; it must be at least {least}.", where=option)
    if not re.fullmatch(r"[a-zA-Z_]\w*", metrics_prefix, re.ASCII):
        raise UsageError(
            f"{metrics_prefix!r} is no name of a metric.",
            where="--metrics-prefix",
            do="--metrics-prefix vllm",
        )
    keys = api_keys(api_key, os.environ.get(KEY_VARIABLE, ""))
    from ownlm.server.models import adapter_names

    adapters = adapter_names(adapter)
    from ownlm.server.runs import RunFolder

    shown = RunFolder(runs) if runs is not None else None
    searched = _opened(documents)
    from ownlm.loaded import resolve

    path = resolve(model)  # before torch is loaded: a wrong name is said at once
    from ownlm.server.run import listen

    sock = listen(host, port, lambda other: _again(path, other))
    from ownlm.server import run
    from ownlm.server.access_log import AccessLog
    from ownlm.server.app import build
    from ownlm.server.front import Access
    from ownlm.server.limits import Limits
    from ownlm.server.models import open_state

    limits = Limits(
        body_bytes=max_body_bytes,
        concurrent=max_concurrent,
        queue=max_queue,
        new_tokens=max_new_tokens,
        seconds=timeout,
    )
    try:
        state = open_state(
            path,
            name=name or _name_of(model, path),
            adapters=adapters,
            chat_template=chat_template,
            limits=limits,
            metrics_prefix=metrics_prefix,
            max_context=max_context,
            device=device,
            dtype=dtype,
        )
    except BaseException:
        sock.close()
        raise
    state.runs, state.documents = shown, searched
    access = Access(keys, [one.lower() for one in allow_host], cors_origin)
    app = build(state, access, AccessLog(content=log_content))
    _announce(state, sock.getsockname(), host, keys)
    if not run.serve(app, state, sock):
        raise Interrupted("requests were broken off.")
    out.say("stopped.")


def api_keys(given: list[str], variable: str) -> dict[str, str]:
    """name -> key; keys without a name are called key1, key2, …

    Args:
        given: KEY or NAME:KEY. variable: the same, with commas.

    Raises:
        UsageError: a key that is too short or cannot stand in a header, or a name twice.
    """
    found: dict[str, str] = {}
    for word in [*given, *filter(None, map(str.strip, variable.split(",")))]:
        name, colon, key = word.partition(":")
        if not colon:
            name, key = f"key{len(found) + 1}", word
        if not re.fullmatch(r"[\w.-]{1,64}", name) or name in found:
            raise UsageError(
                "a name for a key twice, or no name.", where="--api-key", do="--api-key NAME:KEY"
            )
        if len(key) < SHORTEST_KEY or not re.fullmatch(r"[!-~]+", key):
            raise UsageError(
                f"a key has at least {SHORTEST_KEY} letters, digits or signs, and no space.",
                where="--api-key",
                do='python -c "import secrets; print(secrets.token_urlsafe())"',
            )
        found[name] = key
    return found


def _opened(path: Path | None) -> Documents | None:
    if path is None:
        return None
    from ownlm.server.documents import Documents

    return Documents(path)


def _name_of(model: Any, path: Path) -> str:
    """What a model is called without --name."""
    typed = os.fspath(model)
    if not Path(typed).exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", typed):
        return typed  # of the hub
    folder = path.resolve()
    return re.sub(r"[^\w.:@+-]", "-", folder.name) or "model"


def _again(path: Path, port: int) -> str:
    """The command as it was typed, with another port."""
    words = sys.argv[1:] if out.from_cli() else ["serve", str(path)]
    kept = [
        w
        for i, w in enumerate(words)
        if w != "--port" and not w.startswith("--port=") and words[i - 1 : i] != ["--port"]
    ]
    return shlex.join(["ownlm", *kept, "--port", str(port)])


def _announce(state: State, address: Any, host: str, keys: dict[str, str]) -> None:
    """Where the server is, what it serves, and what to type."""
    shown = "127.0.0.1" if host in ("0.0.0.0", "::", "") else f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{address[1]}"
    first = state.models.first
    from ownlm.server.run import is_loopback

    if not keys and not is_loopback(address[0]):
        out.warn(
            f"{host}: everybody who reaches this machine can use the model. Try: {KEY_VARIABLE}=… ownlm serve …, or --host 127.0.0.1"
        )
    out.say(f"Serving {', '.join(state.models.by_name)} at {url} (Ctrl-C stops it)")
    if first.driver is not None:
        out.say(f"  {first.driver.engine.plan}", style="dim")
    if first.template is None:
        out.say(
            "  no chat template: /v1/chat/completions answers with an error, /v1/completions continues text",
            style="dim",
        )
    header = ' -H "Authorization: Bearer KEY"' if keys else ""
    body = (
        '{"messages": [{"role": "user", "content": "Hello"}]}'
        if first.template
        else '{"prompt": "Once upon"}'
    )
    route = "chat/completions" if first.template else "completions"
    out.next_commands(f"curl {url}/v1/{route}{header} -H \"Content-Type: application/json\" -d '{body}'")
