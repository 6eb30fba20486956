"""What can go wrong with the hub, in words that say what to do."""

from __future__ import annotations

from typing import Any, NamedTuple

from ownlm.console.errors import OwnlmError, UsageError

LOGIN = "HF_TOKEN=hf_… in front of the command, or: hf auth login"


class HubName(NamedTuple):
    """A repository and the branch, tag or commit of it."""

    repository: str
    revision: str

    def __str__(self) -> str:
        return self.repository if self.revision == "main" else f"{self.repository}@{self.revision}"


class HubError(Exception):
    """The hub gave nothing; `own` makes the message of it.

    Args:
        what, why, do: as in `OwnlmError`.
        kind: the error that it becomes, which decides the exit code.
    """

    def __init__(self, what: str, why: str = "", do: str = "", kind: type[OwnlmError] = UsageError) -> None:
        super().__init__(what)
        self.what, self.why, self.do, self.kind = what, why, do, kind

    def own(self, name: object, before: str = "", also: str = "") -> OwnlmError:
        """The message: first what was found here, then what the hub said."""
        do = f"{also}, or: {self.do}" if also and self.do else also or self.do
        return self.kind(f"{before} {self.what}".strip(), where=name, why=self.why, do=do)


def unreachable(name: object, reason: str) -> HubError:
    """The error for a hub that does not answer."""
    from huggingface_hub import constants

    return HubError(
        f"The hub at {constants.ENDPOINT} cannot be reached ({reason}).",
        "A mirror is named by HF_ENDPOINT. Without a network, a folder that was fetched elsewhere and carried here does.",
        f"on a machine with a network: ownlm pull {name} -o DIR; then DIR in place of {name}",
        OwnlmError,
    )


def translate(name: HubName, error: Exception) -> HubError:
    """What an error of huggingface_hub means for the user."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    page = f"{constants.ENDPOINT}/{name.repository}"
    if not isinstance(error, HfHubHTTPError):
        text = " ".join(str(error).split())[:150]
        return unreachable(name, f"{type(error).__name__}: {text}" if text else type(error).__name__)
    status = error.response.status_code
    if isinstance(error, GatedRepoError):
        known = "The token that was sent has no access yet." if get_token() else "No token was sent."
        return HubError(
            f"The hub gives this model only to those who asked for it ({status}, gated).",
            known,
            f"agree to its terms at {page}, then {LOGIN}",
        )
    if isinstance(error, RevisionNotFoundError):
        return HubError(
            f"The hub has {name.repository}, but no revision {name.revision!r} of it.",
            do=f"{name.repository}, or one of {page}/tree/main",
        )
    if isinstance(error, RemoteEntryNotFoundError):
        return HubError("The hub lists a file that it does not have.", do=f"look at {page}", kind=OwnlmError)
    if isinstance(error, RepositoryNotFoundError):
        known = (
            "or the token gives no access to it" if get_token() else "or it is private and no token was sent"
        )
        return HubError(
            f"The hub at {constants.ENDPOINT} has no model of this name ({status}), {known}.", do=LOGIN
        )
    if status in (401, 403):
        return HubError(f"The hub refuses access ({status}): {_said(error)}.", do=LOGIN)
    return HubError(
        f"The hub at {constants.ENDPOINT} answered {status}: {_said(error)}.",
        do="the same command later" if status == 429 or status >= 500 else f"look at {page}",
        kind=OwnlmError,
    )


def _said(error: Any) -> str:
    said = " ".join((error.server_message or "no reason given").split())
    return said[:200].rstrip(".")
