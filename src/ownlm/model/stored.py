"""Stored weights of a folder: one safetensors file or many with an index; checked whole before anything is read.

A tensor is used where it lies, in a private memory map of its file (`mapped`), or is read into memory of its own
(`read`): the first when it is kept as it is, the second when it is changed on the way, because pages of a map that
were looked at count as the process's memory beside the changed copy.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ownlm.console.errors import Refused, UsageError
from ownlm.json_files import read_object

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "consolidated.*.pth")
OTHERS = ("tf_model.h5", "flax_model.msgpack", "model.onnx", "*.gguf")

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class Entry(NamedTuple):
    """Where a tensor is: its file, dtype, shape, and the bytes [begin, end) of that file."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


class StoredWeights:
    """The tensors of a folder by name.

    Raises (when made):
        UsageError: no weights there. Refused: pickled weights only, a damaged file, an index that points elsewhere.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: dict[str, Entry] = {}
        self._open: dict[Path, BinaryIO] = {}
        self._maps: dict[Path, torch.UntypedStorage] = {}
        for file in self._files():
            self._add(file)

    def _files(self) -> list[Path]:
        index = self.folder / INDEX
        if (self.folder / SINGLE).is_file():
            return [self.folder / SINGLE]
        if index.is_file():
            return self._indexed(index)
        self._refuse_without_safetensors()

    def _indexed(self, index: Path) -> list[Path]:
        content = read_object(index)
        try:
            files = sorted(set(content["weight_map"].values()))
        except (KeyError, TypeError, AttributeError) as error:
            raise Refused(f"not an index of weights: {error}.", where=index) from None
        for name in files:
            # A folder from elsewhere must not read outside of itself.
            if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
                raise Refused(f"names the file {str(name)[:80]!r}, which is not one beside it.", where=index)
            if not (self.folder / name).is_file():
                raise UsageError(
                    f"the weights are not complete: {name} is missing.",
                    where=self.folder,
                    do="fetch or copy the folder again",
                )
        return [self.folder / name for name in files]

    def _refuse_without_safetensors(self) -> NoReturn:
        for patterns, what in ((PICKLED, "pickled weights"), (OTHERS, "weights in another format")):
            found = sorted(path.name for pattern in patterns for path in self.folder.glob(pattern))
            if found:
                raise Refused(
                    f"holds only {what} ({', '.join(found[:3])}).",
                    where=self.folder,
                    why="A pickle can run any program when it is opened; only safetensors files are read."
                    if patterns is PICKLED
                    else "Only safetensors files are read.",
                    do="another revision or repository with model.safetensors, or convert it where you trust it: "
                    'python -c "from transformers import AutoModelForCausalLM as M; '
                    "M.from_pretrained('SRC').save_pretrained('DST')\"",
                )
        raise UsageError(
            "the weights are missing (no model.safetensors).", where=self.folder, do="ownlm runs"
        )

    def _add(self, file: Path) -> None:
        try:
            with safe_open(file, framework="pt"):
                pass  # the library checks the header: sizes, offsets without gaps or overlaps, dtypes
            with file.open("rb") as stream:
                size = int.from_bytes(stream.read(8), "little")
                header = json.loads(stream.read(size))
        except (SafetensorError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise Refused(
                f"not a whole safetensors file: {reason}.", where=file, do="fetch or copy it again"
            ) from None
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            if name in self.entries:
                raise Refused(f"the tensor {name!r} is in two files.", where=file)
            self.entries[name] = self._entry(file, name, entry, 8 + size)

    def _entry(self, file: Path, name: str, entry: dict[str, Any], data: int) -> Entry:
        dtype = DTYPES.get(entry["dtype"])
        if dtype is None:
            raise Refused(
                f"the tensor {name!r} has the dtype {entry['dtype']}, which is not read.", where=file
            )
        shape = tuple(entry["shape"])
        begin, end = entry["data_offsets"]
        if end - begin != math.prod(shape) * dtype.itemsize:
            raise Refused(f"the tensor {name!r} has another size than its shape says.", where=file)
        return Entry(file, dtype, shape, data + begin, data + end)

    @property
    def bytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(entry.end - entry.begin for entry in self.entries.values())

    def largest(self) -> int:
        """Bytes of the largest tensor."""
        return max((entry.end - entry.begin for entry in self.entries.values()), default=0)

    def read(self, name: str, memory: Tensor | None = None) -> Tensor:
        """A tensor in its stored dtype, in memory of its own, or in `memory`, bytes that hold it."""
        entry = self.entries[name]
        if memory is None:
            tensor = torch.empty(entry.shape, dtype=entry.dtype)
        else:
            tensor = memory[: entry.end - entry.begin].view(entry.dtype).view(entry.shape)
        if tensor.numel():
            stream = self._stream(entry.file)
            stream.seek(entry.begin)
            left = memoryview(tensor.view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
            while len(left):
                count = stream.readinto(left)  # type: ignore[attr-defined]
                if not count:
                    raise Refused("the file became shorter while it was read.", where=entry.file)
                left = left[count:]
        return tensor

    def mapped(self, name: str) -> Tensor:
        """A tensor in its stored dtype that reads the file when it is looked at; writing to it does not write there."""
        entry = self.entries[name]
        if entry.begin % entry.dtype.itemsize or not entry.end - entry.begin:
            return self.read(name)
        if entry.file not in self._maps:
            size = entry.file.stat().st_size
            if size < entry.end:
                raise Refused("the file became shorter while it was read.", where=entry.file)
            storage = torch.UntypedStorage.from_file(str(entry.file), shared=False, nbytes=size)
            self._maps[entry.file] = cast(torch.UntypedStorage, storage)
        whole = torch.empty(0, dtype=entry.dtype)
        whole.set_(self._maps[entry.file], entry.begin // entry.dtype.itemsize, entry.shape)  # type: ignore[call-overload]
        return whole

    def _stream(self, file: Path) -> BinaryIO:
        if file not in self._open:
            self._open[file] = open(file, "rb", buffering=0)  # noqa: PTH123 - unbuffered, kept open
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(self._open[file].fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return self._open[file]

    def __enter__(self) -> StoredWeights:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in self._open.values():
            stream.close()
