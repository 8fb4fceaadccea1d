"""What a request gets, by RFC 9110 and 9112; pure."""

from __future__ import annotations

import pytest

from backend.distribution.http_ranges import BadRequest, Span, parse_head, parse_ranges, respond

SHA = "ab" * 32


@pytest.mark.parametrize(
    ("field", "spans"),
    [
        ("bytes=0-0", [(0, 1)]),
        ("bytes=0-99", [(0, 100)]),
        ("bytes=0-100000", [(0, 100)]),
        ("bytes=99-", [(99, 1)]),
        ("bytes=-1", [(99, 1)]),
        ("bytes=-1000", [(0, 100)]),
        ("Bytes=10-19, 30-39,-5", [(10, 10), (30, 10), (95, 5)]),
        ("bytes=100-, 1-2", [(1, 2)]),  # one part that lies beyond the end is left out
        ("bytes=0-" + "9" * 400, [(0, 100)]),
        ("bytes=100-", []),
        ("bytes=-0", []),
        ("bytes=5-2", []),
        ("bytes=", []),
        ("bytes=-", []),
        ("bytes=a-b", []),
        ("bytes=0x1-2", []),
        ("bytes=1-2;3-4", []),
        ("bytes=+1-2", []),
        ("bytes=１-２", []),  # digits, but not of ASCII
        ("bytes=0-" + "9" * 2000, []),
        ("bytes=0-99,0-99", []),  # more than the whole
        ("bytes=" + ",".join(["0-0"] * 17), []),
        ("lines=1-2", None),
        ("bytes", []),
    ],
)
def test_ranges(field: str, spans: list[Span] | None) -> None:
    assert parse_ranges(field, 100) == spans


def test_nothing_of_an_empty_file_can_be_asked_for() -> None:
    assert parse_ranges("bytes=0-", 0) == parse_ranges("bytes=-5", 0) == []


def ask(*fields: str, method: str = "GET") -> tuple[str, dict[str, str], int]:
    head = "\r\n".join([f"{method} /x HTTP/1.1", "Host: h", *fields]).encode()
    status, answer, parts = respond(parse_head(head), 100, SHA, "edge")
    return status[:3], dict(answer), sum(1 if isinstance(part, bytes) else part[1] for part in parts)


def test_conditions() -> None:
    tag, other = f'"{SHA}"', '"another"'
    assert ask() == ("200", {"ETag": tag, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}, 100)
    assert ask("Range: bytes=0-9")[::2] == ("206", 10)
    assert ask("Range: bytes=0-9", f"If-Range: {tag}")[::2] == ("206", 10)
    assert ask("Range: bytes=0-9", f"If-Range: {other}")[::2] == ("200", 100)
    assert ask("Range: bytes=0-9", f"If-Range: W/{tag}")[::2] == ("200", 100)
    assert ask("Range: bytes=0-9", "If-Range: Thu, 26 Nov 2026 21:00:00 GMT")[::2] == ("200", 100)
    assert ask("Range: bytes=200-")[:2][1]["Content-Range"] == "bytes */100"
    assert ask("Range: bytes=0-9", method="HEAD")[::2] == ("200", 100)
    assert ask(f"If-None-Match: {other}, W/{tag}")[0] == "304"
    assert ask("If-None-Match: *")[0] == "304"
    assert ask(f"If-Match: W/{tag}")[0] == ask(f"If-Match: {other}")[0] == "412"
    assert ask(f"If-Match: {other}, {tag}")[0] == "200"
    assert ask(method="POST")[:2] == ("405", {"Allow": "GET, HEAD"})


def test_several_parts_have_a_head_each() -> None:
    head = parse_head(b"GET /x HTTP/1.1\r\nHost: h\r\nRange: bytes=0-1,98-")
    status, fields, parts = respond(head, 100, SHA, "edge")
    assert status == "206 Partial Content"
    assert dict(fields)["Content-Type"] == "multipart/byteranges; boundary=edge"
    text = b"".join(part if isinstance(part, bytes) else b"#" * part[1] for part in parts)
    kind = b"Content-Type: application/octet-stream\r\n"
    assert text == (
        b"--edge\r\n" + kind + b"Content-Range: bytes 0-1/100\r\n\r\n##\r\n"
        b"--edge\r\n" + kind + b"Content-Range: bytes 98-99/100\r\n\r\n##\r\n--edge--\r\n"
    )


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /x", "400"),
        (b"GET  HTTP/1.1\r\nHost: h", "400"),
        (b"GET /x y HTTP/1.1\r\nHost: h", "400"),
        (b"GET /x HTTP/2.0\r\nHost: h", "505"),
        (b"\x16\x03\x01\x02", "400"),
        (b"GET /x HTTP/1.1", "400"),  # no Host
        (b"GET /x HTTP/1.1\r\nHost: h\r\nHost: i", "400"),
        (b"GET /x HTTP/1.1\r\nHost: h\r\n folded: x", "400"),
        (b"GET /x HTTP/1.1\r\nHost : h", "400"),
        (b"GET /x HTTP/1.1\r\nHost: h\r\nA: b\nC: d", "400"),
        (b"GET /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5", "400"),
        (b"GET /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked", "400"),
        (b"GET /x HTTP/1.1\r\nHost: h\r\nRange: bytes=0-1\r\nRange: bytes=2-3", "400"),
        (b"GET /x HTTP/1.1\r\nHost: h" + b"\r\na: b" * 64, "431"),
    ],
)
def test_bad_requests(head: bytes, status: str) -> None:
    with pytest.raises(BadRequest) as error:
        parse_head(head)
    assert error.value.status.startswith(status)


def test_a_connection_lasts_as_the_version_says() -> None:
    assert parse_head(b"GET /x HTTP/1.1\r\nHost: h").lasting
    assert not parse_head(b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: Close").lasting
    assert not parse_head(b"GET /x HTTP/1.0").lasting
    assert parse_head(b"GET /x HTTP/1.0\r\nConnection: keep-alive").lasting
