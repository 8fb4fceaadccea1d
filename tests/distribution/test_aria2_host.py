"""The program that runs aria2c, against range servers that are good, wrong, silent or gone."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.distribution.aria2_host import cells
from backend.distribution.aria2_reasons import ended
from backend.distribution.reasons import Reason
from tests.distribution.programs import FETCH, WAIT_S, Program, Sample, Served, no_aria2, sample

needs_aria2 = pytest.mark.skipif(bool(no_aria2()), reason=no_aria2() or "aria2c is there")

Fetch = Callable[..., Program]
Serve = Callable[..., Served]


@pytest.fixture
def given(tmp_path: Path) -> Sample:
    return sample(tmp_path / "model.bin", 4_000_001)


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    folder = tmp_path / "stage"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def serve(given: Sample) -> Iterator[Serve]:
    made: list[Served] = []

    def one(path: Path | None = None, **more: Any) -> Served:
        made.append(Served(given, path, **more))
        return made[-1]

    yield one
    for server in made:
        server.end()


@pytest.fixture
def fetch(given: Sample, stage: Path) -> Iterator[Fetch]:
    made: list[Program] = []

    def one(sources: dict[str, str] | None = None, **more: Any) -> Program:
        request = {"folder": str(stage), "size": len(given.data), "sha256": given.sha256}
        request |= {"piece_size": given.piece_size, "pieces": b"".join(given.pieces).hex()}
        made.append(Program(FETCH, {**request, **more}))
        if sources:
            give(made[-1], sources)
        return made[-1]

    yield one
    for program in made:
        program.end()


def give(program: Program, sources: dict[str, str]) -> None:
    program.tell({"op": "sources", "sources": [{"name": name, "urls": [url]} for name, url in sources.items()]})


def over(program: Program) -> dict[str, Any]:
    return program.until_key("complete", "failed", "stopped")


def reason(said: dict[str, Any]) -> Reason:
    return ended(said["failed"], said.get("sources"), said.get("blamed") or ()).reason


@needs_aria2
def test_bad_pieces_are_loaded_again_and_their_source_is_named(
    fetch: Fetch, serve: Serve, given: Sample, stage: Path
) -> None:
    wrong = tuple(range(0, len(given.data), 50_000))
    bad = serve(given.copy(stage.with_name("bad"), wrong=wrong), rate=4_000_000)
    program = fetch({"bad": bad.url, "good": serve(rate=1_000_000).url})
    assert over(program) == {"complete": True}
    assert (stage / "data").read_bytes() == given.data
    assert {line["blamed"] for line in program.said if "piece" in line} == {"bad"}
    assert sorted(os.listdir(stage)) == ["aria2.claim", "aria2.lock", "data"]


@needs_aria2
def test_with_a_bad_source_alone_the_load_fails_and_names_it(
    fetch: Fetch, serve: Serve, given: Sample, stage: Path
) -> None:
    said = over(fetch({"bad": serve(given.copy(stage.with_name("bad"), wrong=(1_000_000,))).url}))
    assert (reason(said), said["blamed"]) == (Reason.CORRUPT, ["bad"])
    again = over(fetch({"good": serve().url}))  # what was right is kept, and goes on with another one
    assert again == {"complete": True} and (stage / "data").read_bytes() == given.data


class Silent:
    """Says that it has the file, begins to give it, and falls silent."""

    def __init__(self, given: Sample) -> None:
        self.given, self.asked = given, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.held: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/x"
        self.accepting = threading.Thread(target=self._accept, daemon=True)
        self.accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.held.append(connection)
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        try:
            head = connection.recv(8192).decode()
        except OSError:
            return
        size = len(self.given.data)
        tag = f'ETag: "{self.given.sha256}"\r\nAccept-Ranges: bytes\r\n'
        if head.startswith("HEAD"):
            answer = f"HTTP/1.1 200 OK\r\n{tag}Content-Length: {size}\r\n\r\n"
        else:
            self.asked += 1
            asked = head.lower().partition("range: bytes=")[2].partition("\r\n")[0] or f"0-{size - 1}"
            first, _, last = asked.partition("-")
            stop = int(last or size - 1)
            answer = f"HTTP/1.1 206 Partial Content\r\n{tag}Content-Range: bytes {first}-{stop}/{size}\r\n"
            answer += f"Content-Length: {stop - int(first) + 1}\r\n\r\n"
        try:
            connection.sendall(answer.encode())
        except OSError:
            return

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)  # which ends the wait for another connection
        self.accepting.join()
        self.listener.close()
        for connection in self.held:
            connection.close()


@pytest.fixture
def silent(given: Sample) -> Iterator[Silent]:
    made = Silent(given)
    yield made
    made.close()


@needs_aria2
def test_a_source_that_falls_silent_holds_up_nothing(
    fetch: Fetch, serve: Serve, silent: Silent, given: Sample, stage: Path
) -> None:
    program = fetch({"silent": silent.url, "good": serve(rate=2_000_000).url}, timeout_s=1.0)
    assert over(program) == {"complete": True}
    assert (stage / "data").read_bytes() == given.data and silent.asked


@needs_aria2
def test_without_a_byte_from_anybody_the_load_ends_as_stalled(fetch: Fetch, silent: Silent) -> None:
    assert reason(over(fetch({"silent": silent.url}, stall_s=1.0))) is Reason.STALLED


@needs_aria2
def test_a_source_that_dies_leaves_its_work_to_the_others(
    fetch: Fetch, serve: Serve, given: Sample, stage: Path
) -> None:
    first, second = serve(rate=300_000), serve(rate=300_000)
    program = fetch({"first": first.url, "second": second.url}, timeout_s=2.0)
    program.until(lambda line: line.get("by", {}).get("first"))
    first.process.kill()
    second.tell({"op": "rate", "rate": 0})
    assert over(program) == {"complete": True}
    assert (stage / "data").read_bytes() == given.data


@needs_aria2
def test_when_all_sources_are_gone_a_new_start_takes_up_what_is_there(
    fetch: Fetch, serve: Serve, given: Sample, stage: Path
) -> None:
    server = serve(rate=500_000)
    program = fetch({"first": server.url}, timeout_s=1.0)
    program.until(lambda line: line.get("have", 0) > 2_500_000)
    server.process.kill()
    said = over(program)
    assert reason(said) is Reason.NO_ROUTE and said["sources"] == {"first": "unreachable"}
    other = serve()
    assert over(fetch({"second": other.url})) == {"complete": True}
    assert (stage / "data").read_bytes() == given.data
    other.tell({"op": "stop"})
    other.until_key("end")
    assert other.said[-2]["sent"]["host"] < len(given.data), "what was there was not sent again"


@needs_aria2
def test_killed_outright_it_is_taken_up_by_the_next_one(fetch: Fetch, serve: Serve, given: Sample, stage: Path) -> None:
    server = serve(rate=500_000)
    program = fetch({"head": server.url})
    program.until(lambda line: line.get("have", 0) > 500_000)
    program.process.kill()
    server.tell({"op": "rate", "rate": 0})
    assert over(fetch({"head": server.url})) == {"complete": True}  # waits until the aria2c of the first is gone
    assert (stage / "data").read_bytes() == given.data


@needs_aria2
def test_the_newer_one_ends_the_older_and_an_older_supervisor_gets_nothing(fetch: Fetch, serve: Serve) -> None:
    url = serve(rate=100_000).url
    first = fetch({"head": url}, epoch=1)
    first.until_key("have")
    second = fetch({"head": url}, epoch=2)
    assert over(first) == {"stopped": True}
    second.until_key("have")
    assert over(fetch(epoch=1))["failed"]["kind"] == "stale"
    ending = fetch(op="end", epoch=2)
    assert ending.until_key("ended") and over(second) == {"stopped": True}


@needs_aria2
def test_it_ends_with_its_lease_and_goes_on_without_its_channel(
    fetch: Fetch, serve: Serve, given: Sample, stage: Path, tmp_path: Path
) -> None:
    lease = tmp_path / "lease"
    lease.touch()
    server = serve(rate=200_000)
    program = fetch({"head": server.url}, lease=str(lease))
    program.until_key("have")
    lease.unlink()
    assert over(program) == {"stopped": True}
    lease.touch()
    program = fetch({"head": server.url}, lease=str(lease))
    program.until_key("have")
    program.hang_up()
    server.tell({"op": "rate", "rate": 0})
    assert program.process.wait(WAIT_S) == 0
    assert (stage / "data").read_bytes() == given.data


@needs_aria2
@pytest.mark.parametrize("before", ["prefix", "holes", "longer", "rubbish", "whole"])
def test_what_lies_there_is_used(fetch: Fetch, serve: Serve, given: Sample, stage: Path, before: str) -> None:
    data = given.data
    (stage / "data").write_bytes(
        {
            "prefix": data[:3_000_000],
            "holes": data[:1_000_000] + bytes(1_000_000) + data[2_000_000:],
            "longer": data + b"x" * 100_000,
            "rubbish": os.urandom(2_000_000),
            "whole": data,
        }[before]
    )
    server = serve()
    assert over(fetch({"head": server.url})) == {"complete": True}
    assert (stage / "data").read_bytes() == data
    server.tell({"op": "stop"})
    server.until_key("end")
    assert server.said[-2]["sent"]["host"] <= {"prefix": 1_500_000, "holes": 1_600_000}.get(before, len(data))


@needs_aria2
def test_a_wrong_token_and_another_file_are_told(fetch: Fetch, serve: Serve) -> None:
    server = serve()
    program = fetch(
        {"wrong": server.url.replace(server.token, "x" * len(server.token)), "none": "http://127.0.0.1:9/x"}
    )
    told = {}
    while len(told) < 2:
        line = program.until_key("source")
        told[line["source"]] = line["said"]
    assert told == {"wrong": "token", "none": "unreachable"}


@needs_aria2
def test_a_port_that_somebody_else_has_is_told(fetch: Fetch, serve: Serve, stage: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = over(fetch({"head": serve().url}, rpc_port=taken.getsockname()[1]))
    assert reason(said) is Reason.PORT_IN_USE
    assert "aria2.conf" not in os.listdir(stage)


def test_without_aria2c_it_says_so(fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert reason(over(fetch())) is Reason.NOT_THERE


@needs_aria2
def test_a_full_disk_is_told(fetch: Fetch, serve: Serve, stage: Path) -> None:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs to mount a small file system")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "none", str(stage)], check=False)
    if done.returncode:
        pytest.skip("cannot mount a small file system here")
    try:
        assert reason(over(fetch({"head": serve().url}))) is Reason.DISK_FULL
    finally:
        subprocess.run(["umount", "-l", str(stage)], check=True)


@pytest.mark.parametrize("name", ["data", "data.aria2", "aria2.lock", "aria2.claim", "aria2.conf"])
def test_a_planted_link_is_refused_and_not_followed(fetch: Fetch, stage: Path, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (stage / name).symlink_to(victim)
    assert reason(over(fetch())) is Reason.UNSAFE
    assert victim.read_text() == "precious"


def test_a_folder_that_others_may_use_or_that_is_a_link_is_refused(fetch: Fetch, stage: Path) -> None:
    stage.chmod(0o755)
    assert reason(over(fetch())) is Reason.UNSAFE
    stage.chmod(0o700)
    link = stage.with_name("link")
    link.symlink_to(stage)
    assert reason(over(fetch(folder=str(link)))) is Reason.UNSAFE


@needs_aria2
def test_a_file_with_a_second_name_is_never_written_to(fetch: Fetch, given: Sample, stage: Path) -> None:
    published = stage.with_name("published")
    given.copy(stage / "data")
    os.link(stage / "data", published)
    assert over(fetch()) == {"complete": True}
    published.write_bytes(b"x" + given.data[1:])
    assert reason(over(fetch())) is Reason.UNSAFE


def test_a_picture_of_the_pieces() -> None:
    assert cells("", 0) == ""
    assert cells("ff80", 9) == "9" * 9
    assert cells("80", 3) == "900"
    assert cells("f" * 64, 256) == "9" * 128
    assert cells("a" * 64, 256) == "4" * 128
