"""Transfers on screen: what the keys do, how a swarm is drawn, and what the numbers mean."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from backend.snapshot import HoldingRow, Limits, Snapshot
from ringrift_console.actions import ACTIONS
from ringrift_console.glyphs import ASCII, UTF8
from ringrift_console.look import Look
from screens import dialogs
from screens import transfer_cells as cells
from screens.form import FormDialog
from screens.transfer_swarm import feeders, piece_map, swarm_lines
from tests.screens.conftest import NOW, SIZE, ago, make_delivery, make_host, make_transfers, press


@pytest.mark.parametrize(
    ("keys", "name", "params"),
    [
        (("x",), "transfers.cancel", {"transfer": "x2"}),
        (("r",), "transfers.retry", {"transfer": "x2"}),
        (("j", "V"), "transfers.verify", {"transfer": "x1"}),
        (("tab", "j", "x"), "transfers.cancel", {"transfer": "x2"}),  # also from the table of hosts
        (("d", "x"), "transfers.cancel", {"transfer": "x2"}),
    ],
)
async def test_a_key_plans_for_the_transfer_under_the_cursor(
    keys: tuple[str, ...], name: str, params: dict[str, Any], build: Callable[..., Any], text_of: Any, asked: Any
) -> None:
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "6", *keys)
        await pilot.pause()
        assert asked == [(name, params)]
        await press(pilot, "escape")
        assert "nothing was done" in "\n".join(text_of(app))


async def test_limits_are_asked_for_with_those_that_are_set_and_an_emptied_field_lifts_one(
    build: Callable[..., Any], text_of: Any, snapshot: Any, asked: Any
) -> None:
    limits = Limits(50.0, hosts=(("birch-1", None, 12.5),), training=("birch-1",))
    rows = tuple(replace(row, asked=Limits(50.0), limits=limits) for row in snapshot.transfers)
    app = build(source=replace(snapshot, transfers=rows, limits=Limits(200.0)))
    async with app.run_test(size=(80, 24)) as pilot:

        async def ask(*keys: str) -> tuple[str, dict[str, Any]]:
            await press(pilot, *keys)
            await until(pilot, lambda: bool(asked))
            await until(pilot, lambda: isinstance(app.screen, dialogs.PlanDialog))
            await press(pilot, "escape")
            await until(pilot, lambda: not isinstance(app.screen, dialogs.Dialog))
            return asked.pop()

        async def form(*keys: str) -> None:
            await press(pilot, *keys)
            await until(pilot, lambda: isinstance(app.screen, FormDialog))

        await press(pilot, "6")
        assert "at most 50 Mbit/s, 1 host limited" in "\n".join(text_of(app))
        await form("l")
        found = await ask("8", "shift+tab", "backspace", "backspace", "enter")
        assert found == ("transfers.limit", {"transfer": "x2", "head": 0.0, "up": 8.0})
        await form("tab", "j", "l")  # of a host
        assert await ask("enter") == ("transfers.limit", {"transfer": "x2", "host": "birch-1"})
        await press(pilot, "enter")
        assert "gives no limit, takes 12.5 Mbit/s, as it trains" in "\n".join(text_of(app))
        await press(pilot, "escape")
        app.screen.query_one("#transfers").focus()
        await form("j", "l")  # one that has ended: all of them
        assert await ask("enter") == ("transfers.limit", {"transfer": "all", "head": 200.0})


async def until(pilot: Any, good: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not good():
            await pilot.pause()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (("u",), "it is not paused"),
        (("j", "p"), "it has ended"),
        (("j", "x"), "it has ended"),
        (("j", "r"), "no host of it has failed"),
    ],
)
async def test_what_cannot_be_done_says_why(
    keys: tuple[str, ...], words: str, build: Callable[..., Any], text_of: Any
) -> None:
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "6", *keys)
        assert words in text_of(app)[-2]


async def test_a_model_is_sent_from_its_row(build: Callable[..., Any], text_of: Any, asked: Any) -> None:
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "4", "t")
        await pilot.pause()
        assert "hosts" in "\n".join(text_of(app)), "which hosts is asked"
        await press(pilot, "enter")
        await pilot.pause()
        assert [(name, given["what"]) for name, given in asked] == [("transfers.distribute", "square8_2p:v2")]


async def test_paused_stands_before_what_it_would_do(build: Callable[..., Any], text_of: Any, snapshot: Any) -> None:
    rows = tuple(replace(row, paused="the link is needed") for row in snapshot.transfers)
    app = build(source=replace(snapshot, transfers=rows))
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "6")
        page = "\n".join(text_of(app))
        assert "■ paused" in page and "✓ done" in page, "only what still goes on can be paused"
        await press(pilot, "d")
        assert "the link is needed" in "\n".join(text_of(app))


async def test_a_model_tells_where_it_is_live(build: Callable[..., Any], text_of: Any, snapshot: Any) -> None:
    sha256 = snapshot.models[0].sha256
    holding = HoldingRow("alder-1", "square8_2p.pth", sha256, sha256, "", "x2", ago(seconds=5), ago(seconds=1))
    rows = tuple(replace(row, sha256=sha256) for row in snapshot.transfers if row.id == "x2")
    app = build(source=replace(snapshot, transfers=rows, holdings=(holding,)))
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "4", "d")
        assert "1 of 4 hosts" in "\n".join(text_of(app))
    drifted = replace(holding, held="")
    assert replace(snapshot, transfers=rows, holdings=(drifted,)).live_hosts(sha256) == (0, 4)


@pytest.mark.parametrize(("size", "keys"), [((80, 24), ("w", "tab")), ((160, 50), ("tab", "tab"))])
async def test_all_hosts_of_a_large_swarm_can_be_seen(
    size: tuple[int, int], keys: tuple[str, ...], build: Callable[..., Any], text_of: Any, snapshot: Any
) -> None:
    hosts = tuple(make_delivery(f"node-{n:02}", n) for n in range(1, 65))
    rows = tuple(replace(row, hosts=hosts) for row in snapshot.transfers)
    app = build(source=replace(snapshot, transfers=rows))
    left = 96 if size[0] > 120 else 0
    async with app.run_test(size=size) as pilot:
        await press(pilot, "6", *keys)
        picture = "\n".join(line[left:] for line in text_of(app)[10:])
        assert "more lines" in picture and "node-64" not in picture
        await press(pilot, "G")
        assert "node-64" in "\n".join(line[left:] for line in text_of(app)[10:])
        await press(pilot, "g")
        assert "head gave" in "\n".join(text_of(app))


def test_where_files_are_live_is_counted_once_for_all_of_them(snapshot: Any) -> None:
    held = ("aa", "aa", None, "bb", "", "cc")
    holdings = tuple(
        HoldingRow(f"host-{n % 4}", f"file-{n}", "aa" if n < 4 else "cc", value, "", "x1", NOW)
        for n, value in enumerate(held)
    )
    rows = tuple(replace(row, sha256=sha256) for row, sha256 in zip(snapshot.transfers, ("aa", "dd"), strict=True))
    given = replace(snapshot, transfers=rows, holdings=holdings)
    for sha256 in ("aa", "bb", "cc", "dd", "ee"):
        wanted = {host.host for row in rows if row.sha256 == sha256 for host in row.hosts}
        wanted |= {row.host for row in holdings if row.sha256 == sha256}
        live = {row.host for row in holdings if (row.held if row.held is not None else row.sha256) == sha256}
        assert given.live_hosts(sha256) == (len(live), len(wanted)), sha256
    assert given.live_hosts("") == (0, 0), "a model whose SHA-256 nobody knows is live nowhere"


def test_a_file_is_not_called_whole_before_it_is() -> None:
    assert cells.percent(0.9999) == "99%" and cells.percent(1.0) == "100%" and cells.percent(None) == "-"


def test_a_proof_says_what_was_proved() -> None:
    look = Look("mono", UTF8)
    host = make_delivery("a", 1, "published")
    assert host.receipt is not None
    assert cells.verified(look, host) == ("hash, loads", "good")
    parts = {"load": {"result": "loads", "method": "structure"}}
    assert cells.verified(look, replace(host, receipt=host.receipt | parts))[0] == "hash, parts"
    unread = {"load": {"result": "not checked"}}
    assert cells.verified(look, replace(host, receipt=host.receipt | unread))[0] == "hash"
    assert cells.verified(look, make_delivery("a", 1))[0] == "-"


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0, "-"), (-1, "-"), (7, "7 B/s"), (999.6, "1 kB/s"), (1_234_567, "1.23 MB/s"), (2.5e11, "250 GB/s")],
)
def test_rates_are_short(rate: float, text: str) -> None:
    assert cells.rate_text(rate) == text and len(text) <= 9


def test_what_is_left_is_unknown_while_one_host_stands_still() -> None:
    row = make_transfers()[1]
    assert cells.left(row) == pytest.approx(SIZE * 0.75 / 2e6)
    still = make_delivery("elm-1", 5, rate=0.0)
    assert cells.left(replace(row, hosts=(*row.hosts, still))) is None


def test_the_bound_is_the_slowest_of_what_must_be_passed() -> None:
    row = make_transfers()[0]

    def bound(head: float | None, *links: float | None) -> float | None:
        hosts = [make_host("local", local=True, mbit=head)]
        hosts += [make_host(host.host, mbit=mbit) for host, mbit in zip(row.hosts, links, strict=True)]
        return cells.bound(row, Snapshot("/r", 1, NOW, hosts=tuple(hosts)))

    assert bound(None, None, None, None, None) is None
    assert bound(100, None, None, None, None) == pytest.approx(6.4)  # 80 MB over 100 Mbit/s
    assert bound(100, 1000, 50, 1000, 1000) == pytest.approx(12.8)  # the slow host
    assert bound(10_000, 100, 100, 100, 100) == pytest.approx(6.4)
    assert bound(100, 1, 1, 1, 1) == pytest.approx(640)


def test_a_finished_transfer_is_measured_against_the_bound() -> None:
    row = make_transfers()[0]
    hosts = (make_host("local", local=True, mbit=100.0),)
    assert cells.limit_text(row, Snapshot("/r", 1, NOW, hosts=hosts), NOW) == "bound 6.4 s, took 9.0 s, 1.41x"
    assert cells.limit_text(row, Snapshot("/r", 1, NOW), NOW) == "took 9.0 s"


@pytest.mark.parametrize("glyphs", [UTF8, ASCII])
def test_a_map_is_as_wide_as_asked_and_shows_holes(glyphs: Any) -> None:
    look = Look("mono", glyphs)
    for width in (1, 7, 16, 64, 100):
        for pieces in ("", "0", "9", "90", "9" * 128, "0" * 127 + "9", "x9", "٣٣"):
            assert len(piece_map(pieces, 0.5, look, width)) == width
    assert piece_map("9990", None, look, 4) == glyphs.bar_full * 3 + glyphs.bar_empty
    assert piece_map("0" * 127 + "9", None, look, 16)[-1] != glyphs.bar_empty, "a little is not nothing"
    assert piece_map("9" * 127 + "0", None, look, 16)[-1] != glyphs.bar_full, "nearly all is not all"


def test_who_feeds_a_host_is_told_busiest_first_and_hostile_peers_break_nothing() -> None:
    host = make_delivery(
        "a",
        1,
        peers=({"name": "b", "down": 1.0}, {"name": "head", "down": 9.0}, {"down": "x"}, {"name": 3, "received": 2}),
    )
    assert [name for name, _, _ in feeders(host)] == ["head", "b", "3"]
    lines = swarm_lines(make_transfers()[1], Look("mono", UTF8), 78)
    assert ["".join(text for text, _ in line).split()[0] for line in lines[1:]] == [
        "alder-1", "birch-1", "cedar-1", "dogwood-1",
    ]  # fmt: skip


def test_ways_that_are_shut_stand_below_the_swarm_with_why() -> None:
    row = make_transfers()[1]
    assert "No way" not in "".join(text for line in swarm_lines(row, Look("mono", UTF8), 78) for text, _ in line)
    shut = replace(row.hosts[1], unreached=(("head", "timed out"), ("[bold]", "connection refused")))
    lines = swarm_lines(replace(row, hosts=(row.hosts[0], shut, *row.hosts[2:])), Look("mono", UTF8), 78)
    title, line = ("".join(text for text, _ in one) for one in lines[-2:])
    assert title.strip() == "No way"
    assert line.split(maxsplit=2)[2] == "head (timed out), [bold] (connection refused)"


def test_every_key_of_the_screen_says_why_it_cannot_be_used_without_a_transfer() -> None:
    for action in ACTIONS:
        if action.scope == "transfers" and action.name.startswith("transfers.") and action.verb:
            if action.name == "transfers.limit":  # it limits all of them then
                continue
            assert action.available(Snapshot("/r", 1, NOW), None) == "no transfer is selected"
