"""Sending a folder to the hub."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ownlm.console import output as out
from ownlm.console.errors import OwnlmError, Refused, UsageError

HIDDEN = [".*", "*/.*"]  # at the top, and below: marks of our own, caches, .git, .env


def push(folder: Path, repository: str, private: bool) -> str:
    """Upload a model folder, without hidden files; the repository is made when it is not there.

    Args:
        folder: a Hugging Face folder.
        repository: owner/name.
        private: whether a repository that is made here is private.

    Returns:
        The address of the repository.

    Raises:
        UsageError: no token, or one that may not write. OwnlmError: the hub cannot be reached.
        Refused: pickled weights in the folder.
    """
    from huggingface_hub import constants, get_token

    from ownlm.hub_errors import LOGIN
    from ownlm.hub_listing import PICKLED

    if constants.HF_HUB_OFFLINE:
        raise UsageError("HF_HUB_OFFLINE forbids to send anything.", where=repository, do="HF_HUB_OFFLINE=0")
    if not get_token():
        raise UsageError("the hub takes models only from those who log in.", where=repository, do=LOGIN)
    pickles = sorted(path.name for pattern in PICKLED for path in folder.glob(pattern))
    if pickles:
        raise Refused(
            f"holds pickled weights ({', '.join(pickles[:3])}); only safetensors are sent.",
            where=folder,
            do=f"ownlm export {folder} DST",
        )
    with _without_telemetry():
        return _sent(folder, repository, private)


def _sent(folder: Path, repository: str, private: bool) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    from ownlm.hub_errors import HubError, HubName
    from ownlm.hub_listing import in_time

    api, name = HfApi(library_name="ownlm"), HubName(repository, "main")
    try:
        # A wrong token or address is known before gigabytes are sent.
        in_time(lambda: _guarded(name, api.whoami), name)
        address = _guarded(
            name, lambda: api.create_repo(repository, private=private, repo_type="model", exist_ok=True)
        )
        if private and not _guarded(name, lambda: api.model_info(repository)).private:
            out.warn(f"{repository} was there already, and it is public.")
        with _bars_on_terminals_only():
            _guarded(
                name,
                lambda: api.upload_folder(
                    repo_id=repository,
                    folder_path=folder,
                    ignore_patterns=list(HIDDEN),
                    commit_message="Upload by ownlm",
                ),
            )
    except HubError as error:
        raise error.own(repository) from None
    except (HTTPError, OSError, ValueError) as error:
        text = " ".join(str(error).split())[:300]
        again = "the same command again; what arrived is not sent twice"
        do = f"HF_HUB_DISABLE_XET=1 in front of the command, or: {again}" if "xet" in text else again
        raise OwnlmError(f"the upload ended: {text}", where=repository, do=do) from None
    return str(address)


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """huggingface_hub asks the hub how to recognise the program that calls it, and tells the hub which it is."""
    from huggingface_hub import constants

    before = constants.HF_HUB_DISABLE_TELEMETRY
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = before


@contextmanager
def _bars_on_terminals_only() -> Iterator[None]:
    """huggingface_hub shows its bars in logs too."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown = not are_progress_bars_disabled()
    hide = shown and (out.is_quiet() or not sys.stderr.isatty())
    if hide:
        disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            enable_progress_bars()


def _guarded(name: Any, call: Any) -> Any:
    """The call's result; its errors in our words."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    from ownlm.hub_errors import HubError, translate

    login = "a token with the right to write: https://huggingface.co/settings/tokens"
    try:
        return call()
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            said = " ".join((error.server_message or "").split())[:200].rstrip(".")
            what = "does not know the token" if status == 401 else f"does not let it write to {name}"
            raise HubError(
                f"The hub {what} ({status}{': ' + said if said else ''}).", do=login, kind=UsageError
            ) from None
        raise translate(name, error) from None
    except HTTPError as error:
        raise translate(name, error) from None
