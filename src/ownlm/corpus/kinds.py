"""Which file is read how: by its extension, its compression by the first bytes; what would read the others."""

from __future__ import annotations

import importlib.util
import re
import shlex
from functools import cache
from pathlib import PurePath

KIND_OF = {
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
    **dict.fromkeys((".jsonl", ".ndjson", ".jsonlines"), "jsonl"),
    ".json": "json",
    ".csv": "csv",
    **dict.fromkeys((".tsv", ".tab"), "tsv"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **{f".{name}": name for name in ("docx", "pptx", "xlsx", "pdf")},
}  # every other extension is plain text, provided that its bytes are

ROW_KINDS = frozenset({"jsonl", "json", "csv", "tsv", "parquet"})
OFFICE_KINDS = frozenset({"docx", "pptx", "xlsx", "pdf"})
BINARY_KINDS = OFFICE_KINDS | {"parquet"}

COMPRESSION_SUFFIX = {".gz": "gzip", ".xz": "xz", ".bz2": "bz2", ".zst": "zstd"}
MAGIC = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\x00": "xz", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd"}

ARCHIVES = {  # and what unpacks them into the folder they lie in
    **dict.fromkeys((".tar", ".tgz", ".txz", ".tbz2", ".tzst"), "tar xf FILE -C FOLDER"),
    **dict.fromkeys((".zip", ".jar", ".whl"), "unzip FILE -d FOLDER"),
    ".7z": "7z x FILE -oFOLDER",
    ".rar": "unrar x FILE FOLDER/",
}
_NOT_TEXT = {
    "image": ".png .jpg .jpeg .gif .bmp .tif .tiff .webp .ico .heic .psd",
    "audio": ".mp3 .wav .flac .ogg .m4a .aac .opus",
    "video": ".mp4 .mkv .mov .avi .webm .m4v",
    "font": ".ttf .otf .woff .woff2",
    "program or library": ".exe .dll .so .dylib .a .o .pyc .pyd .class .wasm",
    "weights or arrays": ".safetensors .bin .pt .pth .ckpt .gguf .onnx .h5 .npy .npz .pkl .arrow .feather",
    "database": ".db .sqlite .sqlite3 .mdb",
}
NOT_TEXT = {suffix: name for name, suffixes in _NOT_TEXT.items() for suffix in suffixes.split()}
OLD_OFFICE = {".doc": ".docx", ".ppt": ".pptx", ".xls": ".xlsx"}


def compression_of(head: bytes) -> str | None:
    """ "gzip", "xz", "bz2" or "zstd" by the magic bytes a file starts with, else None."""
    for magic, name in MAGIC.items():
        if head.startswith(magic) and (name != "bz2" or head[3:4].isdigit()):
            return name
    return None


def suffix_of(name: str, compressed: bool = False) -> str:
    """The extension that tells the kind, lower case: `rows.jsonl.xz` → `.jsonl` when it is compressed."""
    path = PurePath(name)
    if compressed and path.suffix.lower() in COMPRESSION_SUFFIX:
        path = path.with_suffix("")
    return path.suffix.lower()


@cache
def installed(package: str) -> bool:
    """Whether an optional package can be imported (it is not imported here)."""
    return importlib.util.find_spec(package) is not None


def with_file(do: str, path: str) -> str:
    """A command for `FILE` (and the `FOLDER` it lies in) as it is typed for one path."""
    quoted = {"FOLDER": str(PurePath(path).parent), "FILE.utf8.txt": f"{path}.utf8.txt", "FILE": path}
    return re.sub(r"FOLDER|FILE(\.utf8\.txt)?", lambda found: shlex.quote(quoted[found[0]]), do)
