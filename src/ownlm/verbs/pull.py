"""`ownlm pull`: a model of the hub as a folder of its own, to be kept and carried."""

from __future__ import annotations

import hashlib
import json as jsonlib
import shlex
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownlm.console import output as out
from ownlm.console.errors import Refused, UsageError
from ownlm.console.progress import Progress
from ownlm.console.settings import verb

if TYPE_CHECKING:
    from ownlm.hub_errors import HubName
    from ownlm.hub_listing import HubFile, Listing

FORMAT = "ownlm pull 1"
FACTS, SUMS, PARTS, LOCK = "ownlm.json", "SHA256SUMS", ".ownlm-pull", ".ownlm-pull.lock"


@verb
def pull(
    name: str, *, output: Path | None = None, tokenizer_only: bool = False, json: bool = False
) -> dict[str, Any]:
    """Fetch a model from the hub into a folder that can be carried to a machine without a network.

    NAME is owner/name, or owner/name@revision. The folder holds real files: config, tokenizer, safetensors,
    licence and README, SHA256SUMS for `sha256sum -c`, and ownlm.json, which says where they come from. Code and
    pickled weights are never fetched. Interrupted, the same command goes on.

    Args:
        name: the model on the hub.
        output: the folder to write; the model's name when not given.
        tokenizer_only: fetch no weights.
        json: print what was fetched as JSON.
    """
    from ownlm.hub import parse
    from ownlm.hub_errors import HubError
    from ownlm.hub_listing import choose

    wanted = parse(name)
    if wanted is None:
        raise UsageError("not a name on the hub.", where=name, do="ownlm pull OWNER/NAME -o DIR")
    target = output or Path(wanted.repository.split("/")[-1])
    before = _claimed(target, wanted, tokenizer_only)
    try:
        listing = _ask(wanted, target, before)
        files = choose(listing, tokenizer_only=tokenizer_only)
        facts = before or _facts(listing, tokenizer_only)
        fetched = _fill(target, listing, files, facts)
    except HubError as error:
        raise error.own(wanted) from None
    sums = _write_sums(target, files)
    done = {
        "model": str(target),
        **{key: facts[key] for key in ("repository", "revision", "commit", "licence")},
        "files": len(sums),
        "bytes": sum(file.size for file in files),
        "fetched_bytes": fetched,
    }
    if out.from_cli():
        _show(done, tokenizer_only, json)
    return done


def _show(done: dict[str, Any], tokenizer_only: bool, as_json: bool) -> None:
    out.say(f"{done['model']}: {out.human_bytes(done['bytes'])}, all hashes are those of the hub.")
    out.say(f"licence: {done['licence'] or 'the repository names none'}")
    if as_json:
        out.result_json(done)
    place = shlex.quote(done["model"])
    use = f"ownlm prepare YOUR_TEXTS -o corpus --tokenizer {place}"
    out.next_commands(
        f"cd {place} && sha256sum -c {SUMS}", use if tokenizer_only else f'ownlm generate {place} "The"'
    )


def _claimed(target: Path, wanted: HubName, tokenizer_only: bool) -> dict[str, Any] | None:
    """What an earlier pull of the same model wrote into ownlm.json, or None for a new folder.

    Raises:
        UsageError: the folder holds something else.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return None
    begun = target.is_dir() and {path.name for path in target.iterdir()} <= {FACTS, LOCK, PARTS}
    if begun and not _has_text(target / FACTS):  # another pull begins, or one had no room for its first bytes
        return None
    try:
        facts = jsonlib.loads((target / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        facts = None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise UsageError("holds other files; nothing was changed.", where=target, do="-o NEW_FOLDER")
    asked = {**wanted._asdict(), "tokenizer_only": tokenizer_only}
    if any(facts.get(key) != value for key, value in asked.items()):
        part = ", the tokenizer only" if facts.get("tokenizer_only") else ""
        raise UsageError(
            f"holds {facts.get('repository')}@{facts.get('revision')}{part}; nothing was changed.",
            where=target,
            do="-o NEW_FOLDER",
        )
    return facts


def _has_text(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0


def _ask(wanted: HubName, target: Path, before: dict[str, Any] | None) -> Listing:
    """The listing; a pull that was interrupted goes on with the commit that it began with."""
    from huggingface_hub import constants

    from ownlm.hub_errors import HubError, HubName
    from ownlm.hub_listing import ask

    if constants.HF_HUB_OFFLINE:
        raise HubError("HF_HUB_OFFLINE forbids to ask the hub.", do=f"HF_HUB_OFFLINE=0 ownlm pull {wanted}")
    if before is None:
        return ask(wanted)
    finished = (target / SUMS).is_file()
    listing = ask(wanted if finished else HubName(wanted.repository, str(before.get("commit"))))
    if listing.commit != before.get("commit"):
        raise Refused(
            f"holds commit {str(before.get('commit'))[:12]}; {wanted} is at {listing.commit[:12]} now.",
            where=target,
            why="Two states of a model are not mixed.",
            do=f"ownlm pull {wanted} -o NEW_FOLDER",
        )
    return listing


def _facts(listing: Listing, tokenizer_only: bool) -> dict[str, Any]:
    from huggingface_hub import constants

    return {
        "format": FORMAT,
        **listing.name._asdict(),
        "commit": listing.commit,
        "licence": listing.licence,
        "endpoint": constants.ENDPOINT,
        "date": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S+00:00}",
        "tokenizer_only": tokenizer_only,
    }


def _fill(target: Path, listing: Listing, files: list[HubFile], facts: dict[str, Any]) -> int:
    """Bring what is missing or damaged into the folder; returns the bytes that came from the network."""
    from huggingface_hub.utils import WeakFileLock

    target.mkdir(parents=True, exist_ok=True)
    if not _has_text(target / FACTS):
        text = jsonlib.dumps(facts, ensure_ascii=False, indent=2) + "\n"
        (target / FACTS).write_text(text, encoding="utf-8")
    with WeakFileLock(target / LOCK):  # a second pull waits and finds everything there
        fetched = _fill_alone(target, listing, files)
    (target / LOCK).unlink(missing_ok=True)
    return fetched


def _fill_alone(target: Path, listing: Listing, files: list[HubFile]) -> int:
    from ownlm.hub_fetch import fetch_file, fetching, is_whole, make_room

    missing = []
    for file in files:
        if not is_whole(file, target / file.name):
            if (target / file.name).exists():
                out.say(f"{file.name} has other bytes than the hub's; it is fetched again.")
            missing.append(file)
    if not missing:
        return 0
    parts = target / PARTS
    parts.mkdir(exist_ok=True)
    make_room(listing, missing, parts)
    network = 0
    with fetching(listing, missing) as progress:
        # config.json last: a folder without it is no model, so an unfinished one is never taken for one.
        for file in sorted(missing, key=lambda file: file.name == "config.json"):
            part = parts / f"{file.digest}.part"
            if _from_cache(listing, file, target / file.name, part, progress):
                continue
            kept = part.stat().st_size if part.is_file() else 0
            fetch_file(listing, file, target / file.name, part, progress)
            network += file.size - kept
    shutil.rmtree(parts)
    return network


def _from_cache(listing: Listing, file: HubFile, target: Path, part: Path, progress: Progress) -> bool:
    """Copy a file that the shared cache has already."""
    from ownlm.hub import storage
    from ownlm.hub_fetch import is_whole

    blob = storage(listing.name.repository) / "blobs" / file.digest
    if not is_whole(file, blob):
        return False
    shutil.copyfile(blob, part)
    part.replace(target)
    progress.update(file.size, note=file.name)
    return True


def _write_sums(target: Path, files: list[HubFile]) -> dict[str, str]:
    """SHA256SUMS over all files and ownlm.json, in the form of `sha256sum`."""
    sums = {}
    for name in sorted([FACTS, *(file.name for file in files)]):
        with (target / name).open("rb") as stream:
            sums[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    lines = "".join(f"{digest}  {name}\n" for name, digest in sums.items())
    (target / SUMS).write_text(lines, encoding="utf-8", newline="\n")
    return sums
