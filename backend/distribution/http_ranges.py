"""What an HTTP request asks of one file, and what it gets; pure.

Standard library only, Python 3.9 or newer: it goes to hosts with :mod:`backend.distribution.ranges`. Byte ranges,
conditions and answers follow RFC 9110 (sections 13 and 14), messages RFC 9112.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from typing import NamedTuple, Union

MOST_RANGES = 16
MOST_FIELDS = 64
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00\r\n]*)")
_RANGE = re.compile(r"(\d{0,1000})-(\d{0,1000})", re.ASCII)
_TAG = re.compile(r'(?:W/)?"[^"]*"')


class BadRequest(Exception):
    """A request that is answered with ``status`` and ends its connection."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


class Request(NamedTuple):
    """A request's head. ``fields`` have lower-case names; ``lasting``: the connection may serve another one."""

    method: str
    target: bytes
    fields: dict[str, str]
    lasting: bool


Span = tuple[int, int]  # first byte, number of bytes
Part = Union[bytes, Span]  # noqa: UP007  evaluated by 3.9


def parse_ranges(value: str, size: int) -> list[Span] | None:
    """The parts of a file that a Range field asks for.

    Returns None for another unit, which is ignored; an empty list when the field is malformed, no part of it lies in
    the file, or it asks for more than the whole (14.2 lets a server refuse that).
    """
    unit, _, rest = value.partition("=")
    if unit.strip().lower() != "bytes":
        return None
    spans: list[Span] = []
    for item in rest.split(","):
        found = _RANGE.fullmatch(item.strip(" \t"))
        if found is None or item.strip(" \t") == "-":
            return []
        first, last = found.groups()
        if not first:
            length = min(int(last), size)
            spans.append((size - length, length))
        elif last and int(last) < int(first):
            return []
        else:
            stop = min(int(last) + 1, size) if last else size
            spans.append((int(first), stop - int(first)))
    spans = [span for span in spans if span[1] > 0]
    if len(spans) > MOST_RANGES or sum(length for _, length in spans) > size:
        return []
    return spans


def parse_head(head: bytes) -> Request:
    """A request's first line and fields, without the empty line at their end."""
    lines = head.split(b"\r\n")
    words = lines[0].split(b" ")
    if len(words) != 3 or not words[1]:
        raise BadRequest("400 Bad Request")
    if words[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise BadRequest("505 HTTP Version Not Supported" if words[2].startswith(b"HTTP/") else "400 Bad Request")
    if len(lines) > MOST_FIELDS + 1:
        raise BadRequest("431 Request Header Fields Too Large")
    fields: dict[str, str] = {}
    for line in lines[1:]:
        found = _HEADER.fullmatch(line)
        if found is None:  # a folded line, a space before the colon: both are ways to smuggle
            raise BadRequest("400 Bad Request")
        name, text = found.group(1).decode("ascii").lower(), found.group(2).decode("latin-1").strip(" \t")
        if name in fields and name in ("host", "range", "if-range", "content-length"):
            raise BadRequest("400 Bad Request")
        fields[name] = f"{fields[name]}, {text}" if name in fields else text
    modern = words[2] == b"HTTP/1.1"
    if (modern and "host" not in fields) or "transfer-encoding" in fields or fields.get("content-length", "0") != "0":
        raise BadRequest("400 Bad Request")
    said = {word.strip().lower() for word in fields.get("connection", "").split(",")}
    lasting = "close" not in said if modern else "keep-alive" in said
    return Request(words[0].decode("latin-1"), words[1], fields, lasting)


def matches(field: str, tag: str, *, weak: bool) -> bool:
    """Whether a list of entity tags, or ``*``, holds ours (13.1.1 compares strongly, 13.1.2 weakly)."""
    if field == "*":
        return True
    found = _TAG.findall(field)
    return tag in found or (weak and "W/" + tag in found)


def respond(request: Request, size: int, sha256: str, boundary: str) -> tuple[str, list[tuple[str, str]], list[Part]]:
    """Status, fields and body for a request that has the right path."""
    tag = f'"{sha256}"'
    fields = [("ETag", tag), ("Accept-Ranges", "bytes")]
    if request.method not in ("GET", "HEAD"):
        return "405 Method Not Allowed", [("Allow", "GET, HEAD")], []
    if "if-match" in request.fields and not matches(request.fields["if-match"], tag, weak=False):
        return "412 Precondition Failed", fields, []
    if "if-none-match" in request.fields and matches(request.fields["if-none-match"], tag, weak=True):
        return "304 Not Modified", fields, []
    asked = request.fields.get("range")
    if asked is None or request.method == "HEAD" or request.fields.get("if-range", tag) != tag:
        spans: list[Span] | None = None
    else:
        spans = parse_ranges(asked, size)
    kind = ("Content-Type", "application/octet-stream")
    if spans is None:
        return "200 OK", [*fields, kind], [(0, size)]
    if not spans:
        return "416 Range Not Satisfiable", [*fields, ("Content-Range", f"bytes */{size}")], []
    if len(spans) == 1:
        return "206 Partial Content", [*fields, kind, ("Content-Range", _content_range(spans[0], size))], [spans[0]]
    parts: list[Part] = []
    for span in spans:
        head = f"--{boundary}\r\nContent-Type: {kind[1]}\r\nContent-Range: {_content_range(span, size)}\r\n\r\n"
        parts += [head.encode(), span, b"\r\n"]
    parts.append(f"--{boundary}--\r\n".encode())
    return "206 Partial Content", [*fields, ("Content-Type", f"multipart/byteranges; boundary={boundary}")], parts


def _content_range(span: Span, size: int) -> str:
    return f"bytes {span[0]}-{span[0] + span[1] - 1}/{size}"


def length_of(parts: list[Part]) -> int:
    return sum(len(part) if isinstance(part, bytes) else part[1] for part in parts)


def answer_head(status: str, fields: list[tuple[str, str]], length: int, *, lasting: bool) -> bytes:
    """Status line and fields of an answer, up to its body."""
    lines = [f"HTTP/1.1 {status}", f"Date: {formatdate(usegmt=True)}"]
    lines += [f"{name}: {value}" for name, value in fields]
    if not status.startswith("304"):
        lines.append(f"Content-Length: {length}")
    if not lasting:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
