"""Whether a file can be read as what it says it is; run in a process of its own, also on hosts: ``loadable.py KIND``.

Standard library only, Python 3.9 or newer; torch is used where it is. The file comes as standard input (an open
descriptor, so that no path is followed), the answer is one line of JSON on standard output:
``{"result": "loads"|"does not load"|"not checked", "method", "version", "message"}``.

Nothing is unpickled but by ``torch.load(weights_only=True)``, and there is no fallback to anything weaker: without
torch a checkpoint's archive is checked (structure, CRC of every entry, names that its pickle asks for), and the answer
says so.
Sizes are compared with what the file can hold before memory is asked for, as an array of 80 bytes may claim 32 GiB.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import inspect
import json
import math
import os
import pickletools
import re
import struct
import sys
import zipfile
import zlib
from typing import IO, Any

BLOCK = 1 << 20
HEADER_BYTES = 65536
MOST_EXPANSION = 1032  # what deflate can make of a byte at most (zlib.net, "Technical details")
MAX_DIMENSION = 1_000_000_000
MOST_ENTRIES = 100_000
ADDRESS_BYTES = 32 << 30
CPU_S = 120
CPU_BYTES_S = 20 << 20

_SIMPLE = re.compile(r"[<>|=]?([?bBhHiIlLqQefdFD]|[biufcSUVaMm]\d*(?:\[[0-9]*[A-Za-z]+\])?)\Z")
_GLOBALS = re.compile(
    r"(collections OrderedDict|torch\._utils _rebuild_\w+|torch\.serialization _get_layout|torch\._tensor _rebuild\w*"
    r"|torch(\.storage)? \w*Storage|torch (Size|device|float\w+|bfloat16|int\d+|uint\d+|bool|half|double|long)"
    r"|torch\.nn\.parameter (Parameter|Buffer))\Z"
)


class Unloadable(Exception):
    """The file is not what it says it is."""


def check_npz(stream: IO[bytes]) -> str:
    """Checks every entry: its header, and that it has the bytes which the header promises; returns what was seen."""
    size = os.fstat(stream.fileno()).st_size
    with _archive(stream) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > MOST_EXPANSION * size:
            raise Unloadable("its entries claim more bytes than the file can hold")
        shapes: dict[str, tuple[int, ...]] = {}
        for entry in entries:
            name = entry.filename
            if not name.endswith(".npy") or name.startswith("/") or ".." in name.split("/") or name in shapes:
                raise Unloadable(f"the entry {name[:80]!r} is no array")
            with archive.open(entry) as source:
                shapes[name] = _array(source, entry, name)
    rows = {name: shapes[name][0] for name in ("features.npy", "values.npy") if shapes.get(name)}
    if len(set(rows.values())) > 1:
        raise Unloadable("its arrays have different numbers of samples")
    if not shapes:
        raise Unloadable("it holds no array")
    return f"{len(shapes)} arrays"


def _array(source: IO[bytes], entry: zipfile.ZipInfo, name: str) -> tuple[int, ...]:
    start = source.read(8)
    if len(start) < 8 or start[:6] != b"\x93NUMPY" or start[6] not in (1, 2, 3):
        raise Unloadable(f"{name[:80]} has no array header")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(source.read(width), "little")
    if length > HEADER_BYTES:
        raise Unloadable(f"{name[:80]} has a header of {length} bytes")
    try:
        header = ast.literal_eval(source.read(length).decode("utf-8" if start[6] == 3 else "latin-1"))
        shape, item = tuple(header["shape"]), _item_bytes(header["descr"])
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError) as error:
        raise Unloadable(f"{name[:80]} has no readable header") from error
    if not all(type(side) is int and 0 <= side <= MAX_DIMENSION for side in shape):
        raise Unloadable(f"{name[:80]} claims the shape {shape}"[:160])
    left = wanted = math.prod(shape) * item
    if entry.file_size != 8 + width + length + wanted:
        raise Unloadable(f"{name[:80]} has {entry.file_size - 8 - width - length} bytes, its header says {wanted}")
    while block := source.read(BLOCK):  # to the end, where the archive's CRC is compared
        left -= len(block)
    if left:
        raise Unloadable(f"{name[:80]} ends {left} bytes early")
    return shape


def _item_bytes(descr: Any) -> int:
    """Bytes of one element; types that hold Python objects have none."""
    if isinstance(descr, str):
        match = _SIMPLE.match(descr)
        if match is None:
            raise Unloadable(f"it holds elements of type {descr[:40]!r}, which would be unpickled")
        code = match.group(1)
        if code[0] in "Mm":
            return 8
        digits = code[1:]
        if not digits:
            return struct.calcsize("=" + {"F": "2f", "D": "2d"}.get(code, code)) if code not in "SUVa" else 0
        return int(digits) * (4 if code[0] == "U" else 1)
    if isinstance(descr, list):
        total = 0
        for one in descr:
            if not isinstance(one, tuple) or not 2 <= len(one) <= 3:
                raise ValueError("no field")
            side = one[2] if len(one) > 2 else ()
            total += _item_bytes(one[1]) * math.prod(side if isinstance(side, tuple) else (side,))
        return total
    raise ValueError("no type")


def check_archive(stream: IO[bytes]) -> str:
    """The structure of a ``torch.save`` file: a zip of stored entries whose one pickle asks for tensors and no more."""
    size = os.fstat(stream.fileno()).st_size
    with _archive(stream) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > size:
            raise Unloadable("its entries claim more bytes than the file holds")
        pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl") or entry.filename == "data.pkl"]
        if len(pickles) != 1:
            raise Unloadable(f"it has {len(pickles)} entries data.pkl, a checkpoint has one")
        asked = _asked_for(archive.read(pickles[0]))
        if strange := sorted(name for name in asked if not _GLOBALS.match(name)):
            raise Unloadable(f"it carries code or objects: {strange[0]}"[:160])
        if (broken := archive.testzip()) is not None:
            raise Unloadable(f"{broken[:80]} fails its CRC")
    return f"{len(entries)} entries"


def _asked_for(data: bytes) -> set[str]:
    """Names that a pickle imports, found without running it; those that cannot be told count as strange."""
    found: set[str] = set()
    words: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in ("GLOBAL", "INST"):
                found.add(str(argument))
            elif opcode.name == "STACK_GLOBAL":
                found.add(" ".join(words[-2:]) if len(words) > 1 else "?")
            elif opcode.name.startswith("EXT"):
                found.add(opcode.name)
            if isinstance(argument, str):
                words.append(argument)
    except Exception as error:
        raise Unloadable("its pickle cannot be read") from error
    return found


def _archive(stream: IO[bytes]) -> zipfile.ZipFile:
    if stream.read(1) == b"\x80":
        raise Unloadable("it is a bare pickle, which can carry code")
    stream.seek(0)
    archive = zipfile.ZipFile(stream)
    if len(archive.infolist()) > MOST_ENTRIES:
        raise Unloadable(f"it has {len(archive.infolist())} entries")
    return archive


def check_checkpoint(stream: IO[bytes]) -> tuple[str, str, str]:
    """Method, version and what was seen; with torch every tensor is read."""
    seen = check_archive(stream)
    try:
        import torch

        restricted = "weights_only" in inspect.signature(torch.load).parameters
    except MemoryError:
        raise
    except Exception:  # none here, or a broken one: a library that it needs is missing
        return "structure", "", seen
    if not restricted:
        return "structure", "", seen
    stream.seek(0)
    try:
        content = torch.load(stream, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # made-up bytes let the restricted unpickler stumble in any way at all
        if _of_the_host(error):
            raise
        lines = str(error).strip().splitlines()
        raise Unloadable(f"torch cannot read it: {lines[0][:120] if lines else type(error).__name__}") from error
    if not isinstance(content, dict):
        raise Unloadable("it holds no dictionary")
    return "weights_only", str(torch.__version__), seen


def _of_the_host(error: Exception) -> bool:
    """Whether a trouble says nothing of the file: no memory, or a disk that cannot be read."""
    if isinstance(error, OSError):
        return error.errno in (errno.EIO, errno.ESTALE, errno.ENOMEM)
    return isinstance(error, RuntimeError) and "memory" in str(error) and "alloc" in str(error)


def check(stream: IO[bytes], kind: str) -> dict[str, str]:
    """The answer for an open file of a kind: ``checkpoint``, ``npz`` or ``other``."""
    answer = {"result": "loads", "method": "", "version": "", "message": ""}
    try:
        if kind == "npz":
            answer.update(method="headers", message=check_npz(stream))
        elif kind == "checkpoint":
            method, version, seen = check_checkpoint(stream)
            answer.update(method=method, version=version, message=seen)
        else:
            answer.update(result="not checked", method="none")
    except Unloadable as error:
        answer.update(result="does not load", message=str(error))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        if _of_the_host(error):
            raise
        answer.update(result="does not load", message=f"not a readable archive: {error}"[:200])
    return answer


def _limit(size: int) -> None:
    """What is read may be hostile: no core, bounded time and memory."""
    import resource

    seconds = CPU_S + size // CPU_BYTES_S
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    with contextlib.suppress(ValueError, OSError):  # a lower limit stands already
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES + 4 * size,) * 2)


def main() -> int:
    kind = sys.argv[1]
    stream = os.fdopen(os.dup(0), "rb")
    _limit(os.fstat(0).st_size)
    sys.stdout.write("\n" + json.dumps(check(stream, kind)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
