"""Model names to local folders: a path stands for itself, another name is fetched from the hub."""

from __future__ import annotations

import os
from pathlib import Path

from ownlm.console.errors import UsageError

# Weights, configuration, tokenizer. Never code, never pickled weights.
PATTERNS = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt"]
TOKENIZER_PATTERNS = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "config.json"]


def local_folder(name: str | os.PathLike[str], *, tokenizer_only: bool = False) -> Path:
    """The local folder (or file) that a name stands for.

    Args:
        name: a folder, a file, or a name on the hub such as "Qwen/Qwen3-0.6B".
        tokenizer_only: fetch no weights.

    Raises:
        UsageError: nothing local has this name and the hub cannot give it.
    """
    path = Path(name)
    if path.exists():
        return path
    text = os.fspath(name)
    if text.count("/") != 1 or text.startswith((".", "/", "~")):
        raise UsageError("no such file or folder, and not a name on the hub (owner/name).", where=text)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = TOKENIZER_PATTERNS if tokenizer_only else PATTERNS
    try:
        return Path(snapshot_download(text, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split("\n")[0].split())
        raise UsageError(
            f"not a local folder, and the hub could not give it ({type(error).__name__}: {reason[:200]}).",
            where=text,
            why="With a mirror, set HF_ENDPOINT to its address; without a network, copy the folder here.",
            do=f"the same command with the path of a local copy in place of {text}",
        ) from None
