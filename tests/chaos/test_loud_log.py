"""Jobs that write more than any link carries, and what nobody should print: the others must not notice.

``RINGRIFT_CHAOS=100`` writes for longer; the counts in ``docs/chaos.md`` are printed with ``-s``.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.paths import Paths
from tests.lab.kept import kept
from tests.lab.sshd import Sshd

OTHERS = 12 if int(os.environ.get("RINGRIFT_CHAOS", "0")) >= 100 else 3
MEGABYTES_A_SECOND = 50
LONGEST_S = 8  # then it is quiet until the others are through: a busy machine must not fill its disk

LOUD = """
import hashlib, os, time
block = bytes(range(256)) * 4096
block = (block + b'\\x1b[2J\\x1b]0;owned\\x07\\xff\\xfe\\x00\\r\\n' * 8)[-1048576:]
digest, began = hashlib.sha256(), time.monotonic()
n = 0
while n < {most} and not os.path.exists({enough!r}):
    os.write(1, block)
    digest.update(block)
    n += 1
    time.sleep(max(0.0, began + n / {rate} - time.monotonic()))
took = time.monotonic() - began
while not os.path.exists({enough!r}): time.sleep(0.02)
with open({told!r}, 'w') as stream: stream.write('%s %d %.1f' % (digest.hexdigest(), n, took))
raise SystemExit({code})
"""


def loud(folder: Path, code: int) -> str:
    most = LONGEST_S * MEGABYTES_A_SECOND
    told, enough = str(folder / "told"), str(folder / "enough")
    return LOUD.format(most=most, rate=MEGABYTES_A_SECOND, told=told, enough=enough, code=code)


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@pytest.mark.parametrize("code", [0, 7])
async def test_a_log_of_50_megabytes_a_second_arrives_whole_and_starves_nobody(
    make_sshd: Callable[..., Sshd], paths: Paths, code: int
) -> None:
    noisy, quiet = make_sshd("noisy"), make_sshd("quiet")
    told, enough = noisy.folder / "told", noisy.folder / "enough"
    async with kept(paths, noisy, quiet, slots=2) as bed:
        first = await bed.add(loud(noisy.folder, code), host="noisy")
        copy = paths.jobs / f"{first}.1" / "log"
        await bed.until(first, lambda _: copy.exists())
        for n in range(OTHERS):
            name = await bed.add("print('short')", host="quiet" if n % 2 else "noisy")
            row = await bed.settled(name)
            assert row.state == "done", row.why
            assert (paths.jobs / f"{name}.1" / "log").read_text() == "short\n"
        assert not told.exists()
        enough.touch()
        row = await bed.settled(first)
        assert (row.state, row.exit_code) == (("done" if code == 0 else "failed"), code), row.why
        digest, blocks, took = told.read_text().split()
        async with asyncio.timeout(120):
            while copy.stat().st_size < int(blocks) * 2**20:
                await bed.tick()
                await asyncio.sleep(0.05)
        assert sha256(copy) == digest
        assert await bed.agree() == {"exited": OTHERS + 1}
        rate = int(blocks) / float(took)
        sys.stdout.write(f"a log of {blocks} MiB at {rate:.0f} MiB/s, {OTHERS} other jobs meanwhile\n")
