"""From a key in the console to hosts that have the promoted model, and back by a rollback that sends no byte of it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend.distribution.drift import audit_hosts, holdings
from backend.distribution.rows import transfer_rows
from backend.fleet.hosts import load_hosts
from backend.paths import Paths
from backend.registry.store import find
from backend.snapshot import TransferRow
from backend.supervisor import stop
from ringrift_console.app import ConsoleApp
from tests.distribution.field import PATIENCE_S, Field, field
from tests.monitoring.conftest import MakeModel, make_network
from tests.registry.synthetic import play
from tests.registry.test_promotion_console import Hand, ask, press
from tests.registry.test_promotion_console import until as wait

__all__ = ["make_network"]
CONFIG = "hex8_2p"
PLACE = f"models/canonical_{CONFIG}.pth"
HOSTS = 4


async def by_keys(pilot: Any, hand: Hand, label: str, key: str, done: Callable[[], bool]) -> None:
    """Goes to a model, presses the key, and confirms the plan as it asks for it."""
    await pilot.app.look_again()
    await press(pilot, "home")
    while pilot.app.screen.subject != label:
        await press(pilot, "down")
    await press(pilot, key)
    assert await ask(pilot, hand), pilot.app.screen.notice
    await wait(done)


async def live(site: Field, number: int, cause: str) -> TransferRow:
    """Waits for the transfer that the daemon makes, until all hosts have the file and gave receipts."""
    rows: tuple[TransferRow, ...] = ()
    try:
        async with asyncio.timeout(PATIENCE_S):
            while len(rows) != number or not rows[-1].ended_at:
                await asyncio.sleep(0.1)
                rows = await transfer_rows(site.store)
    except TimeoutError:
        raise AssertionError(f"{rows} {await site.store.events()}") from None
    row = rows[-1]
    assert (row.cause, row.name, row.live, row.state) == (cause, PLACE, HOSTS, "done")
    for host in row.hosts:
        assert host.receipt is not None and host.receipt["verify"]["sha256"] == row.sha256
        assert host.receipt["load"]["method"] in ("weights_only", "structure")
    return row


def drift(paths: Paths) -> dict[str, Any]:
    """What ``ringrift fleet drift`` says; it ends with 0 when no host differs and all have answered."""
    argv = [sys.executable, "-m", "ringrift_console.cli", "fleet", "drift", "--json", "--root", str(paths.root)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


async def test_a_promotion_by_keys_ends_live_on_every_host_and_a_rollback_sends_no_byte_of_the_model(
    tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch, make_network: MakeModel
) -> None:
    async with field(tmp_path, paths, monkeypatch, HOSTS, cap="100mbit") as site:
        bare = {"python_path": "python3"}  # without torch, for a check that takes less time
        site.describe(h3=bare, h4=bare)
        models = [make_network(CONFIG), make_network(CONFIG)]
        site.follow(PLACE)
        try:
            hand = Hand()
            app = ConsoleApp(paths, monotonic=hand)
            async with app.run_test(size=(120, 40)) as pilot:
                await wait(lambda: app.have_read)
                await press(pilot, "4")
                for number, row in enumerate(models, 1):
                    play(paths, row.sha256, "heuristic:1", 240, wins=210, config=CONFIG)
                    play(paths, row.sha256, "random:1", 120, wins=118, config=CONFIG)
                    if number == 2:
                        before = models[0]
                        play(paths, row.sha256, f"neural:{before.sha256[:16]}:s16", 400, wins=300, config=CONFIG,
                             opponent_sha256=before.sha256)  # fmt: skip
                    for stage in ("staging", "production"):
                        await by_keys(
                            pilot,
                            hand,
                            row.label,
                            "P",
                            lambda row=row, stage=stage: find(paths, row.label).stage == stage,
                        )
                    made = await live(site, number, "promotion")
                    assert made.sha256 == row.sha256
                told = await asyncio.to_thread(drift, paths)
                assert (told["drifted"], told["silent"], len(told["holdings"])) == (0, {}, HOSTS)
                sent = site.left_head()
                await by_keys(
                    pilot, hand, models[1].label, "B", lambda: find(paths, models[0].label).stage == "production"
                )
                made = await live(site, 3, "rollback")
                sent = site.left_head() - sent
                await app.look_again()
                assert app.snapshot.live_hosts(models[0].sha256) == (HOSTS, HOSTS)
            assert (made.sha256, made.head_sent) == (models[0].sha256, 0)
            assert all(host.receipt and host.receipt["from"] == "kept copy" for host in made.hosts)
            assert all(host.attempts == 0 for host in made.hosts), "no engine was started"
            assert sent < HOSTS * made.size, (
                f"{sent} bytes left the head, programs and answers; the file has {made.size}"
            )
            assert await audit_hosts(paths, site.store, load_hosts(paths.hosts_yaml).hosts) == {}
            assert not [one for one in await holdings(site.store) if one.drifted]
            for path, seen in site.witness.seen.items():
                assert seen == {row.sha256 for row in models}, path
        finally:
            await asyncio.to_thread(stop, paths)
        await site.quiet()
