"""The range server as a process, asked over sockets: also by clients that mean no good."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.distribution.programs import WAIT_S, Sample, Served, sample

Serve = Callable[..., Served]


@pytest.fixture
def given(tmp_path: Path) -> Sample:
    return sample(tmp_path / "model.bin", 700_001)


@pytest.fixture
def serve(given: Sample) -> Iterator[Serve]:
    made: list[Served] = []

    def one(path: Path | None = None, **more: Any) -> Served:
        made.append(Served(given, path, **more))
        return made[-1]

    yield one
    for server in made:
        server.end()


def ask(server: Served, *, method: str = "GET", path: str = "", **fields: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)
    try:
        names = {name.replace("_", "-"): value for name, value in fields.items()}
        connection.request(method, path or f"/{server.token}/{server.sha256}", headers=names)
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()
    finally:
        connection.close()


def raw(server: Served, data: bytes) -> bytes:
    """Everything that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), WAIT_S) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        found = b""
        try:
            while block := connection.recv(65536):
                found += block
        except ConnectionResetError:
            pass
        return found


def test_it_gives_the_whole_and_parts(serve: Serve, given: Sample) -> None:
    server = serve()
    status, fields, body = ask(server)
    assert (status, body == given.data, fields["ETag"]) == (200, True, f'"{given.sha256}"')
    assert ask(server, method="HEAD")[1]["Content-Length"] == str(len(given.data))
    assert ask(server, Range="bytes=5-9")[::2] == (206, given.data[5:10])
    assert ask(server, Range="bytes=-3")[::2] == (206, given.data[-3:])
    status, fields, body = ask(server, Range="bytes=0-1,9-9")
    assert status == 206 and given.data[0:2] in body and len(body) == int(fields["Content-Length"])
    status, fields, _ = ask(server, Range=f"bytes={len(given.data)}-")
    assert (status, fields["Content-Range"]) == (416, f"bytes */{len(given.data)}")
    sent = server.until(lambda line: line.get("sent", {}).get("host", 0) >= len(given.data) + 8)
    assert set(sent["sent"]) == {"host"}


def test_a_connection_serves_several_requests_also_when_they_come_at_once(serve: Serve, given: Sample) -> None:
    server = serve()
    one = f"GET /{server.token}/{server.sha256} HTTP/1.1\r\nHost: h\r\nRange: bytes={{}}\r\n\r\n"
    answer = raw(server, (one.format("0-3") + one.format("4-7")).encode())
    assert answer.count(b"206 Partial Content") == 2 and given.data[:4] in answer and given.data[4:8] in answer


@pytest.mark.parametrize("shape", ["/", "/{sha}", "/{token}", "/{token}/{sha}/", "/{token}/../{token}/{sha}", "*",
                                   "/{token}/../../../etc/passwd", "/{token}/%2e%2e/{sha}", "http://h/{token}/{sha}",
                                   "/{other}/{sha}", "/{token}/{sha}?x=1"])  # fmt: skip
def test_only_one_path_leads_to_the_file(serve: Serve, shape: str) -> None:
    server = serve()
    assert server.port
    path = shape.format(token=server.token, sha=server.sha256, other="x" * len(server.token))
    answer = raw(server, f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 401 ") and b"Content-Length: 0" in answer


def test_a_token_is_given_and_taken(serve: Serve) -> None:
    server = serve(rate=20_000)
    server.tell({"op": "admit", "token": "second", "label": "beta"})
    path = f"/second/{server.sha256}"
    deadline = time.monotonic() + WAIT_S
    while ask(server, method="HEAD", path=path)[0] != 200:
        assert time.monotonic() < deadline
    with socket.create_connection(("127.0.0.1", server.port), WAIT_S) as loading:
        loading.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        assert loading.recv(100)
        server.tell({"op": "revoke", "label": "beta"})
        while loading.recv(65536):  # broken off, long before the end
            pass
    assert ask(server, method="HEAD", path=path)[0] == 401
    assert ask(server, method="HEAD")[0] == 200


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /" + b"a" * 9000, b"431"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 1_000_000, b"431"),
        (b"GET / HTTP/1.1\r\nHost: h\r\n" + b"a: b\r\n" * 500 + b"\r\n", b"431"),
        (b"\0\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", b"400"),
    ],
    ids=["long path", "long field", "many fields", "no request", "with a body"],
)
def test_hostile_requests_end_their_connection_and_nothing_else(serve: Serve, data: bytes, status: bytes) -> None:
    server = serve()
    answer = b""
    deadline = time.monotonic() + WAIT_S
    while not answer:  # a reset may overtake the answer while we still send
        assert time.monotonic() < deadline
        try:
            answer = raw(server, data)
        except (ConnectionResetError, BrokenPipeError):
            continue
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert ask(server, method="HEAD")[0] == 200


def test_a_client_that_drips_is_cut_off_and_one_that_is_silent_too(serve: Serve) -> None:
    server = serve(head_s=1.0, idle_s=1.0)
    with socket.create_connection(("127.0.0.1", server.port), WAIT_S) as silent:
        assert silent.recv(100) == b""
    with socket.create_connection(("127.0.0.1", server.port), WAIT_S) as slow:
        slow.settimeout(0.05)
        answer, sent = b"", 0
        while not answer and sent < WAIT_S / 0.05:
            slow.sendall(b"G" if not sent else b"x")
            sent += 1
            try:
                answer = slow.recv(100)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408 ")
    assert ask(server, method="HEAD")[0] == 200


def test_a_client_that_takes_nothing_is_cut_off(serve: Serve, tmp_path: Path) -> None:
    big = sample(tmp_path / "big", 40_000_000)
    server = Served(big, block_s=0.5)
    try:
        with socket.socket() as lazy:
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            lazy.settimeout(WAIT_S)
            lazy.connect(("127.0.0.1", server.port))
            lazy.sendall(f"GET /{server.token}/{server.sha256} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            deadline = time.monotonic() + WAIT_S
            while established(server.port) > 0:
                assert time.monotonic() < deadline
                time.sleep(0.05)
    finally:
        server.end()


def established(port: int) -> int:
    """Connections that the server's side holds open: state 01 of /proc/net/tcp, by local port."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[1].endswith(f":{port:04X}") and line[3] == "01" for line in lines)


def test_more_connections_than_it_takes_are_told_to_come_again(serve: Serve) -> None:
    server = serve(connections=2)
    held = [socket.create_connection(("127.0.0.1", server.port), WAIT_S) for _ in range(2)]
    try:
        for connection in held:  # each has been answered, so each has its place
            connection.sendall(f"HEAD /{server.token}/{server.sha256} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        with socket.create_connection(("127.0.0.1", server.port), WAIT_S) as third:
            assert third.recv(1000).startswith(b"HTTP/1.1 503 ")
    finally:
        for connection in held:
            connection.close()
    deadline = time.monotonic() + WAIT_S
    while ask(server, method="HEAD")[0] != 200:
        assert time.monotonic() < deadline


@pytest.mark.parametrize("change", ["touched", "longer", "shorter"])
def test_a_file_that_was_changed_is_not_given_any_more(serve: Serve, given: Sample, change: str) -> None:
    server = serve()
    assert ask(server, method="HEAD")[0] == 200
    if change == "touched":
        os.utime(given.path, ns=(1, 1))
    else:
        os.truncate(given.path, len(given.data) + (1 if change == "longer" else -1))
    assert ask(server)[0] == 410
    server.until_key("changed")


def test_a_change_while_it_is_given_breaks_the_answer_off(serve: Serve, given: Sample) -> None:
    server = serve(rate=50_000)
    with socket.create_connection(("127.0.0.1", server.port), WAIT_S) as loading:
        loading.sendall(f"GET /{server.token}/{server.sha256} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        got = loading.recv(65536)
        os.utime(given.path, ns=(1, 1))
        while block := loading.recv(65536):
            got += block
    assert len(got) < len(given.data)


def test_a_file_replaced_by_a_rename_is_still_the_one_that_was_opened(serve: Serve, given: Sample) -> None:
    server = serve()
    assert server.port
    other = given.path.with_name("other")
    other.write_bytes(b"x" * len(given.data))
    other.replace(given.path)
    assert ask(server)[2] == given.data


def test_what_is_no_plain_file_as_it_was_checked_is_refused(serve: Serve, given: Sample, tmp_path: Path) -> None:
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(given.path)
    os.mkfifo(pipe)
    for path, kind in ((link, "unsafe"), (pipe, "unsafe"), (tmp_path, "unsafe"), (tmp_path / "none", "missing")):
        assert serve(path).until_key("error")["error"] == kind
    assert serve(seal=[1, 2]).until_key("error")["error"] == "changed"
    assert serve(size=1).until_key("error")["error"] == "changed"


def test_a_port_in_use_and_an_address_of_nobody_here_are_told(serve: Serve) -> None:
    first = serve()
    assert serve(port=first.port).until_key("error")["error"] == "port"
    assert serve(listen=["192.0.2.1"]).until_key("error")["error"] == "address"
    first.tell({"op": "listen", "address": "192.0.2.1"})
    assert first.until_key("error") == {
        "error": "address",
        "address": "192.0.2.1",
        "message": first.said[-1]["message"],
    }


def test_it_ends_with_its_lease_whoever_is_on_the_channel(serve: Serve, tmp_path: Path) -> None:
    lease = tmp_path / "lease"
    lease.touch()
    server = serve(lease=str(lease))
    assert server.port
    os.utime(lease, (1, 1))
    assert server.until_key("end")["end"] == "the lease is over"
    server.process.wait(WAIT_S)


def test_it_outlives_the_channel_by_its_lease_and_no_longer(serve: Serve) -> None:
    server = serve(lease_s=1.0)
    assert ask(server, method="HEAD")[0] == 200
    server.hang_up()
    assert server.process.wait(WAIT_S) == 0


def test_what_was_said_to_nobody_does_not_change_how_it_ends(serve: Serve) -> None:
    server = serve(lease_s=1.0)
    assert server.port
    assert server.process.stdout is not None
    server.process.stdout.close()
    assert ask(server)[0] == 200  # what it has sent is told, to nobody
    assert server.process.wait(WAIT_S) == 0


def test_the_newest_one_takes_the_place_and_an_old_supervisor_gets_none(serve: Serve, tmp_path: Path) -> None:
    claim = str(tmp_path / "claim")
    first = serve(claim=claim, epoch=1)
    assert first.port
    second = serve(claim=claim, epoch=2)
    assert second.port
    assert first.until_key("end")["end"] == "another one has taken over"
    assert serve(claim=claim, epoch=1).until_key("error")["error"] == "stale"
    assert ask(second, method="HEAD")[0] == 200


def test_the_token_shows_nowhere(serve: Serve) -> None:
    server = serve()
    assert ask(server)[0] == 200
    about = Path("/proc", str(server.process.pid))
    assert server.token.encode() not in (about / "cmdline").read_bytes() + (about / "environ").read_bytes()
    server.tell({"op": "stop"})
    server.until_key("end")
    assert server.process.stderr is not None
    assert server.token not in str(server.said) and server.process.stderr.read() == b""


def test_it_runs_on_the_oldest_python(serve: Serve, given: Sample) -> None:
    found = shutil.which("python3.9")
    if found is None or subprocess.run([found, "-c", ""], check=False, capture_output=True).returncode:
        pytest.skip("there is no Python 3.9 on this machine")
    assert ask(serve(python="python3.9"))[2] == given.data
