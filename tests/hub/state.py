"""What the hub of the tests holds, what it was asked, and how it misbehaves."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

TOKEN = "hf_of_the_tests"


def git_hash(data: bytes) -> str:
    """What git calls a file with these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repository:
    """Branches and tags by name; each is a commit, and a commit is its files."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    licence: str = "apache-2.0"

    def commit(self, files: dict[str, bytes], ref: str = "main") -> str:
        names = json.dumps({name: git_hash(data) for name, data in sorted(files.items())})
        found = hashlib.sha1(names.encode()).hexdigest()
        self.commits[found], self.refs[ref] = dict(files), found
        return found

    def find(self, revision: str) -> str | None:
        return self.refs.get(revision, revision if revision in self.commits else None)


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def range(self) -> str | None:
        return self.headers.get("range")


class Hub:
    """What the server holds, what it was asked, and how it misbehaves.

    Args of its faults:
        cut: file name → after how many bytes of it the connection is cut, each time, `cuts` times in all.
        replaced: file name → other bytes than the listing announces.
        listed: file name → fields of its row in the listing that are different.
        status: (pattern of a path, status, header) answered in place of anything else.
        ranges: whether Range is understood.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.aliases: dict[str, str] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.cut: dict[str, int] = {}
        self.cuts = 10**9
        self.replaced: dict[str, bytes] = {}
        self.listed: dict[str, dict[str, Any]] = {}
        self.status: list[tuple[str, int, dict[str, str]]] = []
        self.ranges = True
        self.endpoint = ""

    def add(self, name: str, files: dict[str, bytes], ref: str = "main") -> str:
        """Commit files to a repository, which is made where needed; returns the commit."""
        return self.repositories.setdefault(name, Repository()).commit(files, ref)

    def asked(self, pattern: str) -> list[Request]:
        """The requests whose path matches."""
        return [request for request in self.requests if re.search(pattern, request.path)]


def is_large(name: str) -> bool:
    """What the hub keeps as LFS objects."""
    return name.endswith((".safetensors", ".bin"))
