"""What the hub says about a repository: its commit and its files, checked before anything is fetched.

The answer comes from elsewhere: names, sizes and hashes are checked here, so that what follows may rely on them.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeVar
from urllib.parse import quote

from ownlm import __version__
from ownlm.console.errors import Refused
from ownlm.hub_errors import HubName, translate, unreachable

T = TypeVar("T")

ANSWER_SECONDS = (
    4.0  # for the first answer; more than an air-gapped machine should wait, enough for a slow line
)
MAX_ANSWER_BYTES = 32 * 2**20
MAX_FILES = 20_000
MAX_TEXT_BYTES = 256 * 2**20  # the largest tokenizer.json of a known model has 34 MB

TEXTS = ("*.json", "*.jinja", "*.spm", "merges.txt", "vocab.txt", "vocab.bpe", "tokenizer.model", "README.md")
LICENCES = re.compile(r"(licen[cs]e|notice|copying|use_policy)[\w-]*(\.(md|txt|rst))?", re.IGNORECASE)
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json",
    "tokenizer.model", "source.spm", "target.spm", "merges.txt", "vocab.txt", "vocab.json", "encoder.json", "vocab.bpe",
    "chat_template.jinja",
)  # fmt: skip
TOKENIZER_MARKS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "encoder.json",
)  # one will do
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
OTHER_WEIGHTS = ("*.gguf", "*.h5", "*.msgpack", "*.onnx")
SHARD = re.compile(r".*-\d+-of-\d+\.safetensors")
OURS = ("ownlm.json", "SHA256SUMS")  # `ownlm pull` writes its own


@dataclass(frozen=True)
class HubFile:
    """A file of a repository. `digest` is the SHA-256 of the bytes, or git's SHA-1 of a small file."""

    name: str
    size: int
    digest: str

    @property
    def is_sha256(self) -> bool:
        """Which of the two `digest` is."""
        return len(self.digest) == 64


@dataclass(frozen=True)
class Listing:
    """A repository at one commit: its files, and what it says of its licence ("" when nothing)."""

    name: HubName
    commit: str
    files: tuple[HubFile, ...]
    licence: str


def ask(name: HubName) -> Listing:
    """Ask the hub for a repository's files.

    Raises:
        HubError: no answer in time, no such repository or revision, no access.
        Refused: an answer that cannot be trusted.
    """
    from huggingface_hub import constants

    address = f"{constants.ENDPOINT}/api/models/{name.repository}/revision/{quote(name.revision, safe='')}"
    return _read(name, in_time(lambda: get_json(name, address), name))


def answer_limit() -> float:
    """Seconds to wait for an answer; the variable is huggingface_hub's own."""
    return float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or ANSWER_SECONDS)


def in_time(call: Callable[[], T], name: object) -> T:
    """The result of a call, or a HubError when it takes too long.

    Time limits of HTTP libraries do not cover the search for an address, which can hang for half a minute on a
    machine without a network. So the call runs in a thread that is left behind.
    """
    limit = answer_limit()
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(limit)
    if errors:
        raise errors[0]
    if not results:
        raise unreachable(name, f"no answer within {limit:.0f} s; HF_HUB_ETAG_TIMEOUT=30 waits longer")
    return results[0]


def request_headers() -> dict[str, str]:
    """The token, when there is one, and nothing about this machine; answers uncompressed, so that they have a size.

    Made here: the library's own function first asks the hub how to recognise the program that calls it.
    """
    from huggingface_hub import constants, get_token

    token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
    login = {"authorization": f"Bearer {token}"} if token else {}
    return {**login, "user-agent": f"ownlm/{__version__}", "accept-encoding": "identity"}


def get_json(name: HubName, address: str) -> Any:
    """The JSON at an address of the hub, of limited size."""
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.utils import get_session, hf_raise_for_status

    text = bytearray()
    try:
        with get_session().stream(
            "GET", address, params={"blobs": "true"}, headers=request_headers(), timeout=answer_limit()
        ) as response:
            hf_raise_for_status(response)
            for chunk in response.iter_bytes():
                text += chunk
                if len(text) > MAX_ANSWER_BYTES:
                    raise Refused(
                        f"the hub's list of files is larger than {MAX_ANSWER_BYTES >> 20} MiB.", where=name
                    )
    except HTTPError as error:
        raise translate(name, error) from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise _nonsense(name, "no JSON") from None


def _nonsense(name: HubName, what: str) -> Refused:
    from huggingface_hub import constants

    return Refused(
        f"the answer of {constants.ENDPOINT} is not a hub's list of files ({what}).",
        where=name,
        why="Names, sizes and hashes are needed to check what is fetched.",
        do="another address in HF_ENDPOINT",
    )


def _read(name: HubName, answer: Any) -> Listing:
    """The listing in the hub's answer."""
    if not isinstance(answer, dict):
        raise _nonsense(name, "no object")
    commit, siblings = answer.get("sha"), answer.get("siblings")
    if not isinstance(commit, str) or not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise _nonsense(name, "no commit")
    if not isinstance(siblings, list) or not all(isinstance(entry, dict) for entry in siblings):
        raise _nonsense(name, "no files")
    if len(siblings) > MAX_FILES:
        raise Refused(f"lists {len(siblings):,} files; a model has a few dozen.", where=name)
    return Listing(name, commit, tuple(_file(name, entry) for entry in siblings), _licence(answer))


def _file(name: HubName, entry: dict[str, Any]) -> HubFile:
    path, size, digest = entry.get("rfilename"), entry.get("size"), entry.get("blobId")
    large = entry.get("lfs")
    if isinstance(large, dict):
        size, digest = large.get("size"), large.get("sha256")
    if not isinstance(path, str) or not path:
        raise _nonsense(name, "a file without a name")
    bad = path.startswith(("/", "~")) or ":" in path.split("/")[0] or "\\" in path or not path.isprintable()
    if bad or any(part in ("", ".", "..") for part in path.split("/")):
        raise Refused(
            f"lists the file {path[:80]!r}, which would lie outside of the model's folder.",
            where=name,
            why="Nothing was fetched.",
        )
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise _nonsense(name, f"{path[:80]} without a size")
    if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", digest):
        raise _nonsense(name, f"{path[:80]} without a hash")
    return HubFile(path, size, digest)


def _licence(answer: dict[str, Any]) -> str:
    card = answer.get("cardData")
    found = card.get("license") if isinstance(card, dict) else None
    if not isinstance(found, str):
        tags = answer.get("tags")
        names = [tag[8:] for tag in tags if str(tag).startswith("license:")] if isinstance(tags, list) else []
        found = names[0] if names else ""
    return " ".join(found.split())[:100]


def choose(listing: Listing, *, tokenizer_only: bool = False) -> list[HubFile]:
    """The files of a model that are fetched: texts at the top of the repository, weights as safetensors.

    Never code, never pickles; of several copies of the weights only one.

    Raises:
        Refused: no weights that can be opened without running code, no config.json, a text of absurd size.
    """
    top = {
        file.name: file for file in listing.files if "/" not in file.name and not file.name.startswith(".")
    }
    if tokenizer_only:
        names = [name for name in top if name in TOKENIZER]
        if not any(name in TOKENIZER_MARKS for name in names):
            raise Refused("has no tokenizer.", where=listing.name, do="another model's name")
    else:
        names = [name for name in top if _is_text(name)] + _weights(listing, list(top))
    if len({name.casefold() for name in names}) < len(names):
        raise Refused("lists files whose names differ in their case alone.", where=listing.name)
    for name in names:
        if not name.endswith(".safetensors") and top[name].size > MAX_TEXT_BYTES:
            raise Refused(
                f"{name} has {top[name].size:,} bytes; that is no text of a model.",
                where=listing.name,
                why=f"At most {MAX_TEXT_BYTES >> 20} MiB are fetched.",
            )
    return [top[name] for name in sorted(names)]


def _is_text(name: str) -> bool:
    return name not in OURS and (
        any(fnmatchcase(name, pattern) for pattern in TEXTS) or LICENCES.fullmatch(name) is not None
    )


def _weights(listing: Listing, names: list[str]) -> list[str]:
    stored = [name for name in names if name.endswith(".safetensors")]
    if not stored:
        everything = [file.name for file in listing.files]
        for patterns, what, why in (
            (PICKLED, "pickled weights", "Opening a pickle can run any program."),
            (OTHER_WEIGHTS, "weights in another format", ""),
        ):
            found = [name for name in everything if any(fnmatchcase(name, pattern) for pattern in patterns)]
            if found:
                raise Refused(
                    f"holds only {what} ({', '.join(found[:3])}); nothing was fetched.",
                    where=listing.name,
                    why=f"{why} Only safetensors files are read.".strip(),
                    do="another revision (NAME@refs/pr/1: the hub often offers a converted one) or another repository",
                )
        raise Refused("holds no weights.", where=listing.name, why="model.safetensors is needed.")
    shards = [name for name in stored if SHARD.fullmatch(name)]
    for chosen in (["model.safetensors"], shards, ["adapter_model.safetensors"], stored):
        if chosen and set(chosen) <= set(stored):
            break
    config = "adapter_config.json" if chosen == ["adapter_model.safetensors"] else "config.json"
    if config not in names:
        raise Refused(
            f"has no {config}; nothing was fetched.",
            where=listing.name,
            why="Without it nobody knows the shape of the model.",
            do="another revision or repository",
        )
    return chosen
