"""`ownlm quickstart`: text → corpus → model → facts, in one command."""

from __future__ import annotations

import itertools
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ownlm.console import output as out
from ownlm.console.errors import UsageError
from ownlm.console.settings import verb

if TYPE_CHECKING:
    from ownlm.corpus.shards import Corpus
    from ownlm.training.run_folder import Run

DEFAULT_FOLDER = "ownlm-quickstart"
SCORED_BYTES = 100_000  # of the file that the closing `score` command reads


@verb
def quickstart(
    sources: list[str] = [],  # noqa: B006 - settings are copied, never changed
    *,
    output: Path | None = None,
    minutes: float = 5.0,
    size: str = "auto",
    seed: int = 0,
    device: str = "auto",
    json: bool = False,
) -> Run:
    """Prepare, train, evaluate and report in a few minutes.

    Reads your files and folders, or, without any, the source code of Python's standard library, which is on every
    machine. Ends with facts about the model, each beside a baseline, a report.html, and what to type next.

    Args:
        sources: files or folders of text; none: the Python standard library.
        output: folder for corpus and run; default ownlm-quickstart, with the first source's name added.
        minutes: how long to train, calibration and writing included.
        size: size of the model, as in `ownlm pretrain`; auto: chosen from the time and the text.
        seed: of split, weights and data order.
        device: where to train: cpu, cuda, mps, or auto.
        json: print the facts as JSON on stdout.
    """
    if minutes <= 0:
        raise UsageError(f"{minutes} minutes are no time to train.", where="--minutes")
    started = time.monotonic()
    folder = output or Path(DEFAULT_FOLDER + _suffix(sources))
    out.say("1/3  prepare", style="bold")
    corpus = _prepare(sources, folder / "corpus", seed)
    out.say()
    out.say("2/3  train", style="bold")
    run = _train(corpus, folder, minutes, size, seed, device)
    out.say()
    out.say("3/3  look at what it learnt", style="bold")
    from ownlm.evaluation.facts import collect, show
    from ownlm.report import write_report

    facts = collect(run.path, corpus, seed)
    report = write_report(run.path)
    show(facts, corpus)
    out.say(f"report: {report}  (all of this in {out.human_seconds(time.monotonic() - started)})")
    place, longer = shlex.quote(str(run.path)), shlex.quote(str(_free(folder, "longer")))
    prompt = facts["prompt"] or "The"
    out.next_commands(
        f"ownlm generate {place} {shlex.quote(prompt)}",
        f"ownlm score {place} {shlex.quote(_some_source(corpus) or prompt)}",
        f"ownlm pretrain {shlex.quote(str(corpus.path))} -o {longer} --minutes {max(10, round(minutes * 6))}"
        + (" --allow-overlap" if run.content["settings"].get("allow_overlap") else ""),
    )
    if json and out.from_cli():
        out.result_json(facts)
    return run


def _suffix(sources: list[str]) -> str:
    if not sources:
        return ""
    name = Path(sources[0]).resolve().stem if sources[0] != "-" else "stdin"
    return "-" + "".join(c if c.isalnum() else "-" for c in name)


def _prepare(sources: list[str], path: Path, seed: int) -> Corpus:
    """The corpus; one that an earlier quickstart made of the same text is used again, another one replaced."""
    from ownlm.corpus.pipeline import prepare_corpus
    from ownlm.corpus.settings import PrepareSettings
    from ownlm.corpus.standard_library import standard_library
    from ownlm.corpus.summary import show

    if sources:
        settings = PrepareSettings(tuple(sources), path, seed=seed, renew=True)
    else:
        library = standard_library()
        settings = PrepareSettings(
            tuple(library.sources),
            path,
            exclude=tuple(library.exclude),
            group_by=library.group_by,
            validation=("hash:0.1",),
            seed=seed,
            renew=True,
        )
    outcome = prepare_corpus(settings)
    show(outcome)
    return outcome.corpus


def _train(corpus: Corpus, folder: Path, minutes: float, size: str, seed: int, device: str) -> Run:
    """A new run, or the unfinished one of an interrupted quickstart."""
    from ownlm.training import preflight_shown
    from ownlm.training.refusals import overlap_beyond
    from ownlm.training.run_folder import read_run
    from ownlm.verbs.pretrain import pretrain

    for path in _taken(folder, "run"):
        content = read_run(path)
        if not content.get("finished") and content["data"]["hash"] == corpus.manifest["hash"]:
            out.say(f"An unfinished run is in {path}: going on with it.")
            with out.no_next_commands():
                return pretrain(corpus.path, output=path, resume=True)
    # A first look is worth having on text that repeats itself too: preflight warns, the model card says it. A refusal
    # would name options that this verb does not have.
    allowed = bool(overlap_beyond(corpus))
    with out.no_next_commands(), preflight_shown.brief():
        path = _free(folder, "run")
        return pretrain(
            corpus.path,
            output=path,
            minutes=minutes,
            size=size,
            seed=seed,
            device=device,
            allow_overlap=allowed,
        )


def _names(folder: Path, name: str) -> Iterator[Path]:
    """run, run-2, run-3, …"""
    yield folder / name
    yield from (folder / f"{name}-{number}" for number in itertools.count(2))


def _taken(folder: Path, name: str) -> Iterator[Path]:
    """The runs of earlier quickstarts."""
    return itertools.takewhile(lambda path: (path / "run.json").exists(), _names(folder, name))


def _free(folder: Path, name: str) -> Path:
    """The first of these names without a run."""
    return next(path for path in _names(folder, name) if not (path / "run.json").exists())


def _some_source(corpus: Corpus) -> str:
    """A held-out file that `score` reads in seconds, as its argument; "" when the text came from elsewhere."""
    split = corpus.split("validation")
    for number in range(min(split.num_documents, 100)):
        path = Path(split.where(number).rsplit(":", 1)[0])
        # A file of many documents is large, and most of them were trained on.
        if path.is_file() and path.stat().st_size <= SCORED_BYTES:
            return f"@{path}"
    return ""
