"""Which ways are tried, when again, and what is known of them."""

from __future__ import annotations

import asyncio
import json

from backend.distribution import ledger
from backend.distribution.ledger import Wanted
from backend.distribution.torrent.reach import AGAIN_S, HEAD, NO_WORD, SILENT_S, Reach
from backend.distribution.transports.base import Observation
from backend.paths import Paths
from backend.state.store import StateStore
from tests.cli.test_bad_input import ringrift


def test_a_way_is_tried_once_and_one_that_is_shut_again_after_a_while() -> None:
    reach = Reach()
    assert reach.ask(0.0, "a", [HEAD, "b"]) == [HEAD, "b"]
    assert reach.ask(1.0, "a", [HEAD, "b"]) == [] and reach.waits("a", [HEAD, "b"]) and reach.pending("a")
    assert reach.heard("a", HEAD, "")
    assert reach.heard("a", "b", "timed out")
    assert not reach.waits("a", [HEAD, "b"]) and not reach.pending("a")
    assert reach.reaches("a", HEAD) and not reach.reaches("a", "b")
    assert reach.blocked() == {("a", "b")} and reach.of("a") == (("b", "timed out"),)
    assert reach.ask(AGAIN_S - 0.1, "a", [HEAD, "b"]) == []
    assert reach.ask(AGAIN_S, "a", [HEAD, "b"]) == ["b"]
    assert reach.blocked() == {("a", "b")}, "until it has got through"
    assert not reach.heard("a", "b", "timed out"), "no news"
    assert reach.ask(2 * AGAIN_S, "a", ["b"]) == ["b"]
    assert reach.heard("a", "b", "") and reach.blocked() == frozenset()
    assert reach.ask(100.0, "a", [HEAD, "b"]) == []


def test_a_host_that_says_nothing_is_waited_for_no_longer_and_asked_again() -> None:
    reach = Reach()
    reach.ask(0.0, "a", ["b"])
    assert reach.ask(SILENT_S - 0.1, "a", ["b"]) == [] and reach.waits("a", ["b"])
    assert reach.ask(SILENT_S, "a", ["b"]) == [] and not reach.waits("a", ["b"])
    assert reach.of("a") == (("b", NO_WORD),)
    assert reach.ask(SILENT_S + 0.1, "a", ["b"]) == ["b"]
    reach.heard("a", "b", "")
    assert reach.reaches("a", "b")


def test_nobody_is_blamed_for_time_in_which_the_head_was_away() -> None:
    reach = Reach()
    reach.ask(0.0, "a", ["b", "c"])
    reach.heard("a", "c", "timed out")
    reach.excuse(20.0)
    assert reach.ask(20.0 + SILENT_S - 0.1, "a", ["b"]) == [] and reach.waits("a", ["b"])
    assert reach.ask(20.0, "a", ["c"]) == ["c"], "a way that failed is tried again all the same"


def test_who_is_connected_with_the_head_has_a_way_there() -> None:
    reach = Reach()
    reach.ask(0.0, "a", [HEAD, "b"])
    reach.met("a")
    assert reach.waits("a", [HEAD]), "that is no answer"
    reach.heard("a", HEAD, "timed out")
    reach.heard("a", "b", "timed out")
    reach.met("a")
    assert reach.reaches("a", HEAD) and reach.blocked() == {("a", "b")}


def test_nothing_is_known_of_the_ways_of_a_host_that_listens_elsewhere_now() -> None:
    reach = Reach()
    for who, other in (("a", "b"), ("b", "a"), ("b", "c")):
        reach.ask(0.0, who, [other])
        reach.heard(who, other, "connection refused")
    reach.forget("a")
    assert reach.blocked() == {("b", "c")}
    assert not reach.heard("a", "b", ""), "an answer to what was asked before"
    assert reach.waits("a", ["b"]) and reach.ask(1.0, "a", ["b"]) == ["b"]


def test_a_reader_is_told_which_ways_are_shut(paths: Paths) -> None:
    hosts = (("a", ("torrent",), 0), ("b", ("torrent",), 1))

    async def stored() -> None:
        async with await StateStore.open(paths) as store:
            await ledger.create(store, Wanted("m", "distribute", "m", "/m", "ab", 100, "other", hosts), "o1")
            seen = Observation("b", 40, 5.0, unreached=(("head", "timed out"), ("a", "connection refused")))
            await ledger.record_progress(store, "x1", {"b": seen}, {})

    asyncio.run(stored())
    shown = ringrift(paths.root, "transfers", "show", "x1")
    assert shown.out.splitlines()[-2:] == [
        "no way from b to head: timed out", "no way from b to a: connection refused",
    ]  # fmt: skip
    (_, b) = json.loads(ringrift(paths.root, "transfers", "show", "x1", "--json").out)["hosts"]
    assert b["unreached"] == [["head", "timed out"], ["a", "connection refused"]]
