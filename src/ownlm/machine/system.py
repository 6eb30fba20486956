"""What is installed and how the terminal is set: versions, compiler, extras, encodings, disk."""

from __future__ import annotations

import importlib.metadata
import json
import locale
import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMPILERS = ("c++", "g++", "clang++", "cl")
PACKAGE = "ownlm"


@dataclass(frozen=True)
class Extra:
    """An optional group of dependencies: those that are missing, and the command that installs the group."""

    name: str
    packages: list[str]
    missing: list[str]
    command: str


def versions() -> dict[str, str]:
    """Versions of Python, the system and the main packages (`not installed` where one is missing)."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.release()}"}
    for package in (PACKAGE, "torch", "numpy", "tokenizers", "tiktoken"):
        found[package] = _version(package) or "not installed"
    return found


def compiler() -> str:
    """The path of a C++ compiler: `$CXX`, else the first usual name on the path; empty without one."""
    for name in (os.environ.get("CXX", ""), *COMPILERS):
        found = shutil.which(name) if name else None
        if found:
            return found
    return ""


def extras(requirements: list[str] | None = None) -> list[Extra]:
    """The extras that the installed package declares, in its order.

    Args:
        requirements: lines of package metadata such as `ftfy>=6.2; extra == "data"`; by default those of the
            installed package, none when it runs from a source folder without installation.
    """
    if requirements is None:
        try:
            requirements = importlib.metadata.requires(PACKAGE) or []
        except importlib.metadata.PackageNotFoundError:
            requirements = []
    groups: dict[str, list[str]] = {}
    for requirement in requirements:
        marker = re.search(r"extra\s*==\s*['\"]([\w.-]+)['\"]", requirement)
        name = re.match(r"[\w.-]+", requirement)
        if marker and name:
            groups.setdefault(marker[1], []).append(name[0])
    return [
        Extra(extra, packages, [p for p in packages if _version(p) is None], install_command(extra))
        for extra, packages in groups.items()
    ]


def install_command(extra: str) -> str:
    """The pip command that brings an extra: by name, or by folder where the package is installed from one."""
    folder = _source_folder()
    return f"pip install -e '{folder}[{extra}]'" if folder else f"pip install '{PACKAGE}[{extra}]'"


def _source_folder() -> str:
    """The folder of an editable installation, else an empty string (PEP 610 direct_url.json)."""
    try:
        text = importlib.metadata.distribution(PACKAGE).read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return ""
    origin = json.loads(text) if text else {}
    if not origin.get("dir_info", {}).get("editable"):
        return ""
    path = Path(unquote(urlsplit(origin["url"]).path))
    return "." if path == Path.cwd() else str(path)


def encoding_problems() -> list[str]:
    """Settings under which Chinese or accented text is lost or files are misread; each with what helps."""
    problems = []
    output = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("_", "-")
    if output not in ("utf-8", "utf8"):
        problems.append(
            f"output is written in {output}: other characters print as ?. Try: PYTHONIOENCODING=utf-8"
        )
    preferred = locale.getpreferredencoding(False)
    if preferred.lower().replace("_", "-") not in ("utf-8", "utf8"):
        problems.append(f"other programs' files are read as {preferred} by default. Try: PYTHONUTF8=1")
    names = sys.getfilesystemencoding()
    if names.lower() not in ("utf-8", "utf8"):
        problems.append(f"file names are read as {names}. Try: PYTHONUTF8=1")
    return problems


def free_disk(folder: Path) -> int:
    """Free bytes on the disk of a folder."""
    return shutil.disk_usage(folder).free


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
