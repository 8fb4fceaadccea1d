"""What of transfers waits for the operator."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from backend.snapshot import DeliveryRow, HoldingRow, TransferRow
from backend.transfer_needs import transfer_needs

NOW = datetime(2026, 11, 27, tzinfo=UTC)


def delivery(host: str, state: str, failure: str = "", *, since_min: float = 0.0) -> DeliveryRow:
    history = ((NOW - timedelta(minutes=since_min), "rsync", failure),)
    return DeliveryRow(host, 0, 1, state, "rsync", ("rsync",), failure=failure, history=history)


def transfer(*hosts: DeliveryRow, paused: str | None = None, ended_h: float | None = None) -> TransferRow:
    ended = None if ended_h is None else NOW - timedelta(hours=ended_h)
    return TransferRow(
        "x1", "t", "promotion", "models/a.pth", "/a", "s", 10, "model", None, "open", paused, "me", NOW, ended_at=ended,
        hosts=hosts,
    )  # fmt: skip


def texts(*rows: TransferRow, holdings: tuple[HoldingRow, ...] = ()) -> list[str]:
    return [need.text for need in transfer_needs(rows, holdings, NOW)]


def test_what_goes_on_needs_nobody() -> None:
    assert texts(transfer(delivery("h1", "fetching"), delivery("h2", "blocked", "no answer", since_min=9))) == []
    assert texts(transfer(delivery("h1", "done"), ended_h=1)) == []


def test_a_pause_says_the_way_on() -> None:
    why = "3 of 4 hosts fell back within 120 s: no route; to go on: ringrift transfers resume x1"
    assert texts(transfer(delivery("h1", "queued"), paused=why)) == [f"x1 models/a.pth is paused: {why}"]
    assert texts(transfer(delivery("h1", "done"), paused=why, ended_h=1)) == []


def test_a_failure_is_told_for_a_day_and_a_wait_after_ten_minutes() -> None:
    failed = [delivery(f"h{n}", "failed", "not loadable: bad") for n in range(1, 6)]
    told = ["x1 models/a.pth failed on h1 h2 h3 and 2 more: not loadable: bad"]
    assert texts(transfer(*failed)) == told == texts(transfer(*failed, ended_h=23))
    assert texts(transfer(*failed, ended_h=25)) == []
    waits = transfer(delivery("h1", "fetching"), delivery("h2", "blocked", "disk full", since_min=11))
    assert texts(waits) == ["x1 models/a.pth waits for h2: disk full"]


def test_files_that_differ_are_counted() -> None:
    sound = HoldingRow("h1", "models/a.pth", "s", "s", "", "x1", NOW)
    lost = HoldingRow("h2", "models/a.pth", "s", "", "nothing there", "x1", NOW)
    never = HoldingRow("h3", "models/a.pth", "s", None, "", "x1", NOW)
    assert texts(holdings=(sound, never)) == []
    assert texts(holdings=(sound, lost)) == ["1 file differs from its receipt on h2: ringrift fleet drift"]
