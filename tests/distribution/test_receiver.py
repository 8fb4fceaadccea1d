"""The receiver on a host: what it refuses, what it proves, what it puts into place and keeps."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backend.distribution import loadable, receiver
from backend.distribution.manifest import make_payload, piece_size
from backend.distribution.reasons import Course, Reason
from backend.distribution.receiving import ReceiverError
from backend.distribution.transports.base import Payload
from backend.errors import UnverifiedError
from tests.distribution.conftest import OWNER, Cluster, some_bytes

NAME = "models/canonical_hex8_2p.pth"
MakeCluster = Callable[..., Awaitable[Cluster]]


def checkpoint(path: Path, seed: int = 0) -> Payload:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    torch.save({"model_state_dict": {"w": torch.rand(64, 64)}}, path)
    return make_payload(path)


async def put(cluster: Cluster, payload: Payload, data: bytes | None = None, name: str = NAME) -> Path:
    """Stages bytes as an engine would."""
    there = await cluster.receivers.prepare(cluster.hosts["n1"], payload, name, cluster.number)
    staged = Path(there.folder) / "data"
    staged.write_bytes(payload.path.read_bytes() if data is None else data)
    return staged


async def finish(cluster: Cluster, payload: Payload, name: str = NAME, **facts: Any) -> dict[str, Any]:
    host = cluster.hosts["n1"]
    return await cluster.receivers.finish(host, payload, name, cluster.number, f"t{cluster.number}", facts)


async def refused(waiting: Awaitable[Any]) -> ReceiverError:
    with pytest.raises(ReceiverError) as caught:
        await waiting
    return caught.value


async def test_a_file_is_proved_and_published_and_the_receipt_says_so(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = await make_cluster()
    payload = checkpoint(tmp_path / "a.pth")
    staged = await put(cluster, payload)
    receipt = await finish(cluster, payload, python=sys.executable)
    place = cluster.base("n1") / NAME
    assert place.read_bytes() == payload.path.read_bytes()
    assert place.stat().st_mode & 0o777 == 0o444
    assert place.samefile(staged), "a hard link, so that an engine can go on giving it to others"
    assert receipt["file"] == {"name": NAME, "sha256": payload.sha256, "size": payload.size, "kind": "checkpoint"}
    assert receipt["destination"] == str(place.resolve())
    assert (receipt["load"]["result"], receipt["load"]["method"]) == ("loads", "weights_only")
    assert receipt["load"]["version"] == torch.__version__
    own = cluster.base("n1") / ".distribution" / OWNER
    assert own.stat().st_mode & 0o777 == 0o700
    assert json.loads((own / "receipts.jsonl").read_text()) == receipt
    assert await finish(cluster, payload) == receipt, "asked again, because the answer was lost"


async def test_an_older_transfer_gives_way_to_a_newer_file_and_finds_its_own_bytes_published(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = await make_cluster()
    old, new = checkpoint(tmp_path / "1.pth", 1), checkpoint(tmp_path / "2.pth", 2)
    cluster.number = 2
    await put(cluster, new)
    await finish(cluster, new)
    cluster.number = 1
    for waiting in (put(cluster, old), finish(cluster, old)):
        failure = (await refused(waiting)).failure
        assert failure.reason is Reason.SUPERSEDED and failure.reason.course is Course.NONE
    assert (await finish(cluster, new))["file"]["sha256"] == new.sha256  # the same bytes, planned before
    names = json.loads((cluster.base("n1") / ".distribution" / OWNER / "names.json").read_text())
    assert names[NAME]["number"] == 2
    assert (cluster.base("n1") / NAME).read_bytes() == new.path.read_bytes()


async def test_receipts_are_a_chain(make_cluster: MakeCluster, tmp_path: Path) -> None:
    cluster = await make_cluster()
    for number in (1, 2, 3):
        cluster.number = number
        payload = checkpoint(tmp_path / f"{number}.pth", number)
        await put(cluster, payload)
        await finish(cluster, payload)
    lines = (cluster.base("n1") / ".distribution" / OWNER / "receipts.jsonl").read_bytes().splitlines()
    before = ""
    for line in lines:
        assert json.loads(line)["before"] == before
        before = hashlib.sha256(line).hexdigest()
    assert len(lines) == 3


async def test_two_versions_are_kept_and_the_one_before_comes_back_without_its_bytes(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = await make_cluster()
    versions = [checkpoint(tmp_path / f"{n}.pth", n) for n in (1, 2, 3)]
    for cluster.number, payload in enumerate(versions, 1):
        await put(cluster, payload)
        await finish(cluster, payload)
    store = cluster.base("n1") / ".distribution" / OWNER / "store"
    assert sorted(os.listdir(store)) == sorted(one.sha256 for one in versions[1:])
    cluster.number = 4
    back = versions[1]
    await cluster.receivers.drop(cluster.hosts["n1"], [one.sha256 for one in versions], [])
    there = await cluster.receivers.prepare(cluster.hosts["n1"], back, NAME, 4)
    assert (there.stored, there.have, there.live) == (True, 0, versions[2].sha256)
    receipt = await finish(cluster, back)
    assert (receipt["from"], receipt["previous"]) == ("kept copy", versions[2].sha256)
    assert hashlib.sha256((cluster.base("n1") / NAME).read_bytes()).hexdigest() == back.sha256
    cluster.number = 3
    error = await refused(finish(cluster, versions[2]))
    assert error.failure.reason is Reason.SUPERSEDED, "an older transfer does not undo a newer one"


async def test_what_is_wrong_is_told_apart_and_nothing_is_published(make_cluster: MakeCluster, tmp_path: Path) -> None:
    cluster = await make_cluster()
    payload = checkpoint(tmp_path / "a.pth")
    whole = payload.path.read_bytes()
    for data, reason in (
        (whole[:-1], Reason.TRUNCATED),
        (whole[:-1] + bytes([whole[-1] ^ 1]), Reason.CORRUPT),
    ):
        staged = await put(cluster, payload, data)
        error = await refused(finish(cluster, payload))
        assert (error.failure.reason, error.busy) == (reason, False)
        assert staged.stat().st_mode & 0o200, "an engine can mend it"
    assert not (cluster.base("n1") / NAME).exists()
    await put(cluster, payload)
    await finish(cluster, payload)


async def test_a_file_that_somebody_writes_is_busy(make_cluster: MakeCluster, tmp_path: Path) -> None:
    cluster = await make_cluster()
    payload = checkpoint(tmp_path / "a.pth")
    staged = await put(cluster, payload)
    with staged.open("r+b"):
        assert (await refused(finish(cluster, payload))).busy
    with staged.open("rb"):
        await finish(cluster, payload)


def test_writers_are_also_found_without_the_kernels_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(receiver.fcntl, "F_SETLEASE", raising=False)
    path = tmp_path / "data"
    path.write_bytes(b"x")
    descriptor = os.open(path, os.O_RDONLY)
    assert not receiver.has_writer(descriptor)
    with path.open("ab"):
        assert receiver.has_writer(descriptor)
    os.close(descriptor)


def test_on_nfs_a_lease_that_is_refused_is_no_writer_but_a_writer_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, order: int, argument: int = 0) -> int:  # as its client does, whoever has the file open
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    path, mounts = tmp_path / "data", tmp_path / "mountinfo"
    path.write_bytes(b"x")
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    mounts.write_text(f"9 1 0:3 / /proc rw - proc proc rw\n10 1 {number} / /a rw shared:1 - nfs4 server:/export rw\n")
    assert receiver.on_nfs(device, str(mounts)) and not receiver.on_nfs(device)
    assert not receiver.on_nfs(os.makedev(0, 3), str(mounts)) and not receiver.on_nfs(device, str(tmp_path / "none"))
    descriptor = os.open(path, os.O_RDONLY)
    monkeypatch.setattr(receiver.fcntl, "fcntl", refuse)
    assert receiver.has_writer(descriptor), "here the kernel knows"
    monkeypatch.setattr(receiver, "on_nfs", lambda device: True)
    assert not receiver.has_writer(descriptor)
    with path.open("ab"):
        assert receiver.has_writer(descriptor)
    os.close(descriptor)


async def test_planted_links_are_refused_and_what_they_point_to_is_untouched(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = await make_cluster()
    payload = checkpoint(tmp_path / "a.pth")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    staged = await put(cluster, payload)
    staged.unlink()
    staged.symlink_to(victim)
    for waiting in (
        finish(cluster, payload),
        cluster.receivers.prepare(cluster.hosts["n1"], payload, NAME, 1),
        cluster.receivers.pieces(cluster.hosts["n1"], payload),
    ):
        assert (await refused(waiting)).failure.reason is Reason.UNSAFE
    stream = await cluster.receivers.open(
        cluster.hosts["n1"], "write", sha256=payload.sha256, size=payload.size, ranges=[[0, payload.size]]
    )
    assert json.loads(await stream.readline())["error"] == Reason.UNSAFE
    stream.close()
    staged.unlink()
    folder = cluster.base("n1") / "models"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder.rmdir()
    folder.symlink_to(elsewhere)
    assert (await refused(put(cluster, payload))).failure.reason is Reason.UNSAFE
    folder.unlink()
    folder.mkdir()
    (folder / "canonical_hex8_2p.pth").symlink_to(victim)
    await put(cluster, payload)
    await finish(cluster, payload)
    assert not (cluster.base("n1") / NAME).is_symlink()
    assert victim.read_text() == "precious"
    assert not list(elsewhere.iterdir())


async def test_folders_that_others_may_write_to_are_refused(make_cluster: MakeCluster, tmp_path: Path) -> None:
    cluster = await make_cluster()
    payload = checkpoint(tmp_path / "a.pth")
    await put(cluster, payload)
    for folder in (cluster.base("n1") / "models", cluster.stage("n1", payload)):
        mode = folder.stat().st_mode
        folder.chmod(0o777)
        error = await refused(finish(cluster, payload))
        assert error.failure.reason is Reason.UNSAFE and "chmod" in error.failure.hint
        folder.chmod(mode)
    await finish(cluster, payload)


@pytest.mark.parametrize(
    "name",
    ["../evil.pth", "/etc/evil", "models/../../evil", "models/.hidden", "-rf", "a\nb", "", "models//x", "stage/x"],
)
async def test_a_name_that_leaves_its_folder_is_refused(make_cluster: MakeCluster, tmp_path: Path, name: str) -> None:
    cluster = await make_cluster()
    payload = checkpoint(tmp_path / "a.pth")
    assert (await refused(put(cluster, payload, name=name))).failure.reason is Reason.UNSAFE
    await put(cluster, payload)
    assert (await refused(finish(cluster, payload, name))).failure.reason is Reason.UNSAFE


async def test_the_right_hash_that_does_not_load_is_never_published(make_cluster: MakeCluster, tmp_path: Path) -> None:
    cluster = await make_cluster()
    path = tmp_path / "evil.pth"
    torch.save({"w": torch.zeros(2), "f": os.system}, path)
    payload = make_payload(path)
    await put(cluster, payload)
    for python in (sys.executable, "python3"):
        error = await refused(finish(cluster, payload, python=python))
        assert error.failure.reason is Reason.NOT_LOADABLE
    assert not (cluster.base("n1") / NAME).exists()
    assert not list((cluster.base("n1") / ".distribution" / OWNER / "store").iterdir())


async def test_disk_full_is_told_before_anything_is_sent(make_cluster: MakeCluster, tmp_path: Path) -> None:
    cluster = await make_cluster()
    path = tmp_path / "huge"
    with path.open("wb") as stream:
        stream.write(b"x")
    huge = Payload(path, 1 << 60, "ab" * 32, "other", 8 << 20, ())
    error = await refused(cluster.receivers.prepare(cluster.hosts["n1"], huge, NAME, 1))
    assert error.failure.reason is Reason.DISK_FULL
    assert "free" in error.failure.hint


async def test_the_audit_finds_what_was_changed_and_hashes_nothing_twice(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = await make_cluster()
    payload = checkpoint(tmp_path / "a.pth")
    await put(cluster, payload)
    await finish(cluster, payload)
    host, place = cluster.hosts["n1"], cluster.base("n1") / NAME
    found = await cluster.receivers.audit(host)
    assert found["names"][NAME]["held"] == payload.sha256
    assert found["kept"] == {payload.sha256: True}
    place.unlink()
    place.write_bytes(b"something else")
    found = await cluster.receivers.audit(host)
    assert found["names"][NAME]["held"] == hashlib.sha256(b"something else").hexdigest()
    assert found["kept"] == {payload.sha256: True}
    place.unlink()
    assert (await cluster.receivers.audit(host))["names"][NAME]["held"] == ""
    assert (await cluster.receivers.prepare(host, payload, NAME, 2)).stored


async def test_old_stages_are_collected_and_others_stay(make_cluster: MakeCluster, tmp_path: Path) -> None:
    cluster = await make_cluster()
    old, new, named = (checkpoint(tmp_path / f"{n}.pth", n) for n in range(3))
    for payload in (old, new, named):
        await put(cluster, payload)
    for path in (cluster.stage("n1", old) / "data", cluster.stage("n1", old)):
        os.utime(path, (0, 0))
    answer = await cluster.receivers.drop(cluster.hosts["n1"], [named.sha256], [])
    assert sorted(answer["removed"]) == sorted([old.sha256, named.sha256])
    assert cluster.stage("n1", new).exists()


async def test_pieces_tell_what_an_engine_may_keep(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster()
    payload = cluster.file(5 * 65536 + 7)
    data = bytearray(payload.path.read_bytes())
    data[65536 + 5] ^= 1
    await put(cluster, payload, bytes(data[: 3 * 65536 + 9]))
    assert await cluster.receivers.pieces(cluster.hosts["n1"], payload) == bytes([1, 0, 1, 0, 0, 0])


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file whose disk answers with an error")
def test_a_file_that_cannot_be_read_here_is_told_in_one_line() -> None:
    with pytest.raises(UnverifiedError, match="cannot be read: Input/output error"):
        make_payload(Path("/proc/self/mem"))


def test_piece_sizes() -> None:
    assert [piece_size(size) for size in (0, 10**6, 128 << 20, 1 << 30, 40 << 30)] == [
        65536, 65536, 131072, 1 << 20, 8 << 20,
    ]  # fmt: skip


# Loadability


def npz(arrays: dict[str, bytes]) -> io.BytesIO:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in arrays.items():
            archive.writestr(name, data)
    return target


def npy(array: np.ndarray[Any, Any], **changes: Any) -> bytes:
    """An array's file, with words of its header replaced."""
    target = io.BytesIO()
    np.lib.format.write_array(target, array, allow_pickle=True)
    data = target.getvalue()
    for old, new in changes.items():
        data = data.replace(old.encode(), new)
    return data


def headed(descr: str) -> bytes:
    """An array's file with this as the type of its elements."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (3,)}}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def verdict(path: Path, data: bytes, kind: str) -> dict[str, str]:
    path.write_bytes(data)
    with path.open("rb") as stream:
        return loadable.check(stream, kind)


def test_what_numpy_writes_loads(tmp_path: Path) -> None:
    target = io.BytesIO()
    pair = np.zeros(3, dtype=[("a", "<f4"), ("b", "u1", (2,))])
    np.savez_compressed(
        target, features=np.zeros((3, 4), np.uint8), values=np.zeros(3, np.float32), word=np.array("hex8"),
        empty=np.zeros((0, 2)), pair=pair, flag=np.array([True]), when=np.zeros(2, "datetime64[s]"), z=np.zeros(2, "F"),
    )  # fmt: skip
    assert verdict(tmp_path / "a.npz", target.getvalue(), "npz")["result"] == "loads"


LIES = {
    "more elements than bytes": {"a.npy": npy(np.zeros(3)).replace(b"(3,), ", b"(9,), ")},
    "a shape of 22 billion": {"a.npy": npy(np.zeros(3)).replace(b"(3,), }          ", b"(22000000000,), }")},
    "objects": {"a.npy": npy(np.array([{}], dtype=object))},
    "no array": {"a.txt": b"hello"},
    "a path": {"../a.npy": npy(np.zeros(3))},
    "a huge header": {"a.npy": b"\x93NUMPY\x02\x00" + (1 << 31).to_bytes(4, "little")},
    "a header that is code": {"a.npy": b"\x93NUMPY\x01\x00\x10\x00__import__('os') "},
    "other numbers of samples": {"features.npy": npy(np.zeros((3, 2))), "values.npy": npy(np.zeros(4))},
    "a negative side": {"a.npy": npy(np.zeros(3)).replace(b"(3,), ", b"(-3,),")},
    "a field without a type": {"a.npy": headed("[('a',)]")},
    "a field that is nothing": {"a.npy": headed("[()]")},
    "a field that is a list": {"a.npy": headed("[[]]")},
    "nothing": {},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_npz_does_not_load(tmp_path: Path, lie: str) -> None:
    answer = verdict(tmp_path / "a.npz", npz(LIES[lie]).getvalue(), "npz")
    assert answer["result"] == "does not load" and answer["message"], answer


def test_what_is_no_archive_does_not_load(tmp_path: Path) -> None:
    good = npz({"a.npy": npy(np.arange(5000))}).getvalue()
    middle = len(good) // 2
    broken = good[:middle] + bytes([good[middle] ^ 255]) + good[middle + 1 :]
    for data in (b"", b"\x80\x04K\x01.", some_bytes(1000), good[:-30], broken):
        for kind in ("npz", "checkpoint"):
            assert verdict(tmp_path / "a", data, kind)["result"] == "does not load"


@pytest.mark.parametrize(
    "torch_there",
    [
        "raise OSError('libcudart.so.12: cannot open shared object file')",
        "raise RuntimeError('numpy was made for another version')",
        "def load(stream, map_location=None): raise TypeError('an old one')",
    ],
)
def test_a_broken_or_old_torch_says_nothing_of_the_file(tmp_path: Path, torch_there: str) -> None:
    path = tmp_path / "a.pth"
    torch.save({"w": torch.rand(3)}, path)
    (tmp_path / "torch.py").write_text(torch_there)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['', 'checkpoint']; "
    code += f"exec(compile(open({loadable.__file__!r}).read(), 'l', 'exec'))"
    with path.open("rb") as stream:
        done = subprocess.run([sys.executable, "-I", "-c", code], stdin=stream, capture_output=True, check=True)
    answer = json.loads(done.stdout)
    assert (answer["result"], answer["method"]) == ("loads", "structure")


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (signal.SIGTERM, Reason.ENGINE),
        (signal.SIGILL, Reason.ENGINE),
        (signal.SIGKILL, Reason.ENGINE),
        (signal.SIGSEGV, None),
    ],
)  # fmt: skip
def test_only_a_crash_that_a_file_can_cause_counts_against_it(
    tmp_path: Path, number: signal.Signals, reason: Reason | None
) -> None:
    dying = tmp_path / "python"
    dying.write_text(f"#!/bin/sh\nkill -{int(number)} $$\n")
    dying.chmod(0o755)
    path = tmp_path / "a.pth"
    path.write_bytes(b"x")
    request = {"kind": "checkpoint", "loadable": loadable.__file__, "python": str(dying)}
    with path.open("rb") as stream:
        if reason is None:
            assert receiver.load(stream.fileno(), request, 1)["result"] == "does not load"
        else:
            with pytest.raises(receiver.Refused) as caught:
                receiver.load(stream.fileno(), request, 1)
            assert caught.value.reason == str(reason)


def test_a_checkpoint_is_checked_by_its_structure_where_there_is_no_torch(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"w": torch.rand(3, dtype=torch.bfloat16), "p": torch.nn.Parameter(torch.zeros(2)), "x": [1, "a"]}, path)
    argv = [sys.executable, "-I", "-S", loadable.__file__, "checkpoint"]  # -S: no site-packages, so no torch

    def answer() -> dict[str, str]:
        with path.open("rb") as stream:
            done = subprocess.run(argv, stdin=stream, capture_output=True, check=True)
        return dict(json.loads(done.stdout))

    assert (answer()["result"], answer()["method"]) == ("loads", "structure")
    torch.save({"f": os.system}, path)
    assert answer()["result"] == "does not load" and "posix system" in answer()["message"]


@pytest.mark.parametrize("python", ["python3.9"])
def test_it_runs_on_the_oldest_python(tmp_path: Path, python: str) -> None:
    if subprocess.run([python, "--version"], capture_output=True, check=False).returncode:
        pytest.skip(f"needs {python}")
    for program in (receiver, loadable):
        subprocess.run([python, "-I", "-S", "-m", "py_compile", str(program.__file__)], check=True, cwd=tmp_path)
    body = json.dumps({"op": "audit", "owner": OWNER, "base": str(tmp_path / "base")}).encode()
    argv = [python, "-I", "-S", str(receiver.__file__)]
    done = subprocess.run(argv, input=b"%d\n%s" % (len(body), body), capture_output=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == {"names": {}, "kept": {}, "stages": []}


async def test_two_receivers_at_once_publish_once(make_cluster: MakeCluster, tmp_path: Path) -> None:
    cluster = await make_cluster()
    payload = checkpoint(tmp_path / "a.pth")
    await put(cluster, payload)
    first, second = await asyncio.gather(finish(cluster, payload), finish(cluster, payload))
    assert first == second
    assert len((cluster.base("n1") / ".distribution" / OWNER / "receipts.jsonl").read_text().splitlines()) == 1
