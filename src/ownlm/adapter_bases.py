"""Which model an adapter folder belongs to, and whether that model is still the same."""

from __future__ import annotations

import shlex
from pathlib import Path

from ownlm.console import output as out
from ownlm.console.errors import Refused, UsageError
from ownlm.corpus import tokenizer_files
from ownlm.corpus.tokenizer import Tokenizer
from ownlm.loaded import read_run, resolve
from ownlm.locate import holds_adapter
from ownlm.model.lora_config import CONFIG, AdapterConfig
from ownlm.model.weights_hash import weights_sha256
from ownlm.tasks.templates import folder_template


def base_of(folder: Path, config: AdapterConfig) -> Path:
    """The folder of the model that an adapter belongs to, fetched from the hub if it has to be.

    `base_model_name_or_path` is a folder, from the root or from the adapter's own folder, or a name on the hub.

    Raises:
        Refused: adapter_config.json names none, or one that is an adapter itself. UsageError: it is not there.
    """
    name, where = config.base, folder / CONFIG
    if not name:
        raise Refused(
            "it does not say which model it changes.",
            where=where,
            do='name it: "base_model_name_or_path": "…"',
        )
    # A checkpoint's folder lies two levels below that of its run.
    starts = [folder, folder.parent.parent] if folder.parent.name == "checkpoints" else [folder]
    places = [start / Path(name).expanduser() for start in starts]
    found = next((place for place in places if _holds_model(place)), None)
    if found is None and Path(name).is_absolute():
        beside = next(
            (p for p in (start.parent / Path(name).name for start in starts) if _holds_model(p)), None
        )
        if beside is not None:
            out.say(f"{folder}: its base is no longer at {name}; {beside} is used.")
            found = beside
    if found is None:
        found = _elsewhere(name, config.revision, where)
    if holds_adapter(found):
        raise Refused(
            f"its base, {found}, is an adapter itself.",
            where=where,
            do=shlex.join(["ownlm", "export", str(found), "MERGED", "--merge-adapter"]),
        )
    return found


def _holds_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() or holds_adapter(folder)


def _elsewhere(name: str, revision: str, where: Path) -> Path:
    """A base that lies in no folder beside: what the name means here, or on the hub."""
    from ownlm.hub import hub_name

    try:
        given = f"{name}@{revision}" if revision and not Path(name).exists() and hub_name(name) else name
        return resolve(given)
    except UsageError as error:
        raise UsageError(
            f"its base, {name}, is not there: {error.what}",
            where=where,
            why="An adapter is a change of another model, which is needed too.",
            do='put it there, or name another place: "base_model_name_or_path" in the file',
        ) from None


def refuse_other_base(adapter: Path, base: Path) -> None:
    """Compare the base's weights with those that the adapter was trained on, when its run.json says them.

    Raises:
        Refused: they are others.
    """
    wanted = read_run(adapter).get("base_sha256")
    if wanted is not None and weights_sha256(base) != wanted:
        raise Refused(
            f"the weights of its base, {base}, are no longer those that it was trained on.",
            where=adapter,
            why="A low-rank change means nothing beside other weights.",
            do="bring the base back as it was, or train the adapter again",
        )


def tokenizer_of(folder: Path, base: Path) -> Tokenizer:
    """The tokenizer of an adapter: its own where its folder has one, else the base's; with the chat template likewise."""
    own = (folder / "tokenizer.json").is_file() or tokenizer_files.find(folder) is not None
    tokenizer = Tokenizer.load(folder if own else base)
    if folder_template(tokenizer, folder) is None and (found := folder_template(tokenizer, base)):
        # Where everything looks that is given the adapter's folder.
        tokenizer.config["chat_template"] = found[0]
    return tokenizer
