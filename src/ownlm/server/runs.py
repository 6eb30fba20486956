"""Runs below a folder, for the page to look at: a list, the curves of a log while it grows, the report.

Runs are called by ids of the server's own, so that no path comes from a client; a file that a link leads out of the
folder is not there.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ownlm.console.errors import UsageError
from ownlm.locate import Run, list_runs
from ownlm.report.log import number, thin
from ownlm.server.errors import ApiError

ID_DIGITS = 16
MOST_BYTES = 4 * 2**20  # of a log in one answer; the next one goes on
MOST_POINTS = 1000  # of a curve in one answer; neighbouring steps become their mean
SERIES = ("loss", "learning_rate", "tokens_per_second")


class RunFolder:
    """The runs below a folder.

    Args:
        folder: that is searched, four levels deep.

    Raises:
        UsageError: there is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UsageError("no such folder.", where=f"--runs {folder}", do="ownlm runs")
        self.folder = folder.resolve()
        self._secret = secrets.token_bytes(32)
        self._paths: dict[str, Path] = {}
        self._lock = threading.Lock()

    def list(self) -> list[dict[str, Any]]:
        """What is known of each run, newest first."""
        runs = list_runs(self.folder)
        with self._lock:
            self._paths = {self._id(run.path): run.path for run in runs}
        return [self._row(run) for run in runs]

    def log(self, run: str, after: int) -> dict[str, Any]:
        """What a log holds after so many bytes.

        Args:
            run: its id. after: "next" of the answer before; 0: from the start.

        Returns:
            "steps": [[step, loss, learning rate, tokens per second], …], "validations": [[step, loss, bits per
            byte], …], "last": the last step as it is; "next"; "restarted": the log is shorter than `after`, so this is all of it; "more": there is
            more to be read now.

        Raises:
            ApiError: 404: there is no such run.
        """
        path = self._file(run, "log.jsonl", missing_is_fine=True)
        if path is None:
            return {
                "steps": [],
                "last": None,
                "validations": [],
                "next": 0,
                "restarted": after > 0,
                "more": False,
            }
        size = path.stat().st_size
        restarted = after > size
        begin = 0 if restarted else after
        with path.open("rb") as stream:
            stream.seek(begin)
            data = stream.read(MOST_BYTES)
        whole = data.rfind(b"\n") + 1  # the last line may be half written
        entries = list(_entries(data[:whole]))
        steps = _rows(entries, "step", SERIES)
        return {
            "steps": _thinned(steps),
            "last": steps[-1] if steps else None,
            "validations": _rows(entries, "validation", ("loss", "bits_per_byte")),
            "next": begin + whole,
            "restarted": restarted,
            "more": whole > 0 and begin + whole < size,
        }

    def report(self, run: str) -> Path:
        """The report of a run.

        Raises:
            ApiError: 404: there is no such run, or it has none.
        """
        path = self._file(run, "report.html")
        assert path is not None
        return path

    def ticket(self, run: str) -> str:
        """What opens a run's report in a tab of its own, where a browser sends no key."""
        return hmac.new(self._secret, run.encode(), "sha256").hexdigest()

    def check_ticket(self, run: str, ticket: str) -> None:
        """Whether a ticket is of this run, and of this server.

        Raises:
            ApiError: 401: it is not.
        """
        if not hmac.compare_digest(self.ticket(run).encode(), ticket.encode("utf-8", "replace")):
            raise ApiError(401, "This address has expired: open the report from the list of runs again.")

    def _id(self, path: Path) -> str:
        name = path.relative_to(self.folder).as_posix()
        return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:ID_DIGITS]

    def _file(self, run: str, name: str, *, missing_is_fine: bool = False) -> Path | None:
        if run not in self._paths:
            self.list()
        folder = self._paths.get(run)
        if folder is None:
            raise ApiError(404, "There is no such run (any more). /runs lists them.", code="run_not_found")
        path = (folder / name).resolve()
        if path.is_file() and path.is_relative_to(self.folder):
            return path
        if missing_is_fine:
            return None
        raise ApiError(404, f"This run has no {name}.", code="file_not_found")

    def _row(self, run: Run) -> dict[str, Any]:
        name = self._id(run.path)
        facts = {part: _part(run, part) for part in ("model", "plan", "result", "cost")}
        result, has_report = facts["result"], (run.path / "report.html").is_file()
        return {
            "id": name,
            "name": run.path.relative_to(self.folder).as_posix(),
            "created": run.facts.get("created"),
            "finished": run.facts.get("finished"),
            "parameters": number(facts["model"].get("parameters")),
            "max_steps": number(facts["plan"].get("max_steps")),
            "loss": _value(result.get("loss")),
            "bits_per_byte": _value(result.get("bits_per_byte")),
            "taught": run.facts.get("taught"),
            "report": f"/page/report/{name}?ticket={self.ticket(name)}" if has_report else None,
            "problem": run.problem or None,
        }


def _part(run: Run, name: str) -> dict[str, Any]:
    """A part of run.json, which somebody else may have written."""
    part = run.facts.get(name)
    return part if isinstance(part, dict) else {}


def _value(metric: object) -> float | None:
    return number(metric.get("value")) if isinstance(metric, dict) else number(metric)


def _entries(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            yield entry


def _thinned(rows: list[list[Any]]) -> list[list[Any]]:
    """The rows; of very many the means of neighbours."""
    if len(rows) <= MOST_POINTS:
        return rows
    columns = []
    for column in range(1, 1 + len(SERIES)):
        points = thin([(row[0], row[column]) for row in rows if row[column] is not None], MOST_POINTS)
        columns.append({point.x: point.y for point in points})
    return [[step, *(column.get(step) for column in columns)] for step in columns[0]]


def _rows(entries: list[dict[str, Any]], kind: str, names: tuple[str, ...]) -> list[list[Any]]:
    found = []
    for entry in entries:
        step = number(entry.get("step"))
        if entry.get("kind") == kind and step is not None:
            found.append([step, *(number(entry.get(name)) for name in names)])
    return found
