"""Hosts on screen: what the keys do there, how courses are drawn, and where a need leads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from backend.errors import RefusedError
from backend.paths import Paths
from backend.plans import Plan
from backend.snapshot import GpuSample, HostSample, Need
from ringrift_console.glyphs import ASCII, UTF8
from screens import dialogs
from screens.hosts import disk_share, gpu_share, memory_share, state_word
from tests.screens.conftest import ago, make_attempt, make_host, make_job, press


@pytest.fixture
def asked(asked: list[tuple[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What was planned; a bootstrap is refused."""
    make = dialogs.make_plan

    async def make_plan(action: Any, paths: Any, params: dict[str, Any]) -> Plan:
        plan = await make(action, paths, params)
        if action.name == "hosts.bootstrap":
            raise RefusedError("glibc 2.17 is older than 2.28", where="alder-1", hint="use a newer release")
        return plan

    monkeypatch.setattr(dialogs, "make_plan", make_plan)
    return asked


@pytest.mark.parametrize(
    ("keys", "name", "params"),
    [
        (("p",), "hosts.probe", {"host": "alder-1"}),
        (("e",), "hosts.enrol", {"host": "alder-1"}),
        (("D", "enter"), "hosts.drain", {"host": "alder-1"}),
        (("j", "U"), "hosts.undrain", {"host": "birch-1"}),
        (("d", "p"), "hosts.probe", {"host": "alder-1"}),
    ],
)
async def test_a_key_plans_for_the_host_under_the_cursor(
    keys: tuple[str, ...],
    name: str,
    params: dict[str, Any],
    build: Callable[..., Any],
    text_of: Any,
    asked: list[tuple[str, dict[str, Any]]],
) -> None:
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "2", "j", *keys)
        await pilot.pause()
        assert asked == [(name, params)]
        assert params["host"] in "\n".join(text_of(app))
        await press(pilot, "escape")
        assert "nothing was done" in "\n".join(text_of(app))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (("e",), "this machine needs no key"),
        (("b",), "this machine runs this installation"),
        (("U",), "it is not drained"),
        (("j", "j", "D"), "it is drained already"),
        (("G", "b"), "its key is not enrolled"),
        (("j", "b"), "glibc 2.17 is older"),
        (("j", "s"), "no such host: alder-1"),
    ],
)
async def test_what_cannot_be_done_says_why(
    keys: tuple[str, ...], words: str, build: Callable[..., Any], text_of: Any, asked: Any
) -> None:
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "2", *keys)
        await pilot.pause()
        assert words in text_of(app)[-2]


async def test_a_terminal_that_cannot_be_lent_is_said(build: Callable[..., Any], text_of: Any, paths: Paths) -> None:
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "2", "s")
        assert "cannot be lent to a shell" in text_of(app)[-2]


@pytest.mark.parametrize("size", [(80, 24), (160, 50)], ids=["80x24", "160x50"])
async def test_the_page_of_a_host_lists_its_jobs_and_what_is_of_another_time(
    size: tuple[int, int], build: Callable[..., Any], text_of: Any, snapshot: Any
) -> None:
    attempt = make_attempt("s14.1", host="cedar-1", unreachable_since=ago(minutes=7))
    jobs = (*snapshot.jobs, make_job("s14", "selfplay", host="cedar-1", attempts=(attempt,)))
    app = build(source=replace(snapshot, jobs=jobs))
    async with app.run_test(size=size) as pilot:
        await press(pilot, "2", "j", "d")
        page = "\n".join(text_of(app))
        assert "Jobs there" in page and "train square8_2p" in page
        assert "s14" not in page and "s11" not in page, "of another host, and ended"
        await press(pilot, "escape", "j", "j", "d")
        page = "\n".join(text_of(app))
        assert "s14" in page and "not heard since 14:00" in page
        assert "Resources as last told, 30s ago" in page
        assert "ssh_port: 22 -> 2222; not used before a reload (R)" in page


async def test_a_changed_hosts_file_is_marked_and_can_be_reloaded(
    build: Callable[..., Any], text_of: Any, snapshot: Any, asked: list[tuple[str, dict[str, Any]]]
) -> None:
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "2")
        assert f"cedar-1{UTF8.attention}" in "\n".join(text_of(app))
        await press(pilot, "R")
        await pilot.pause()
        assert [name for name, _ in asked] == ["hosts.reload"]
        await press(pilot, "escape")
        app.source = replace(snapshot, hosts=tuple(replace(host, changed=()) for host in snapshot.hosts))
        await app.look_again()
        await press(pilot, "R")
        assert "the hosts file has not changed" in text_of(app)[-2]


async def test_a_need_leads_to_its_host(build: Callable[..., Any], snapshot: Any) -> None:
    app = build(source=replace(snapshot, needs=(Need("host cedar-1: no connection", "cedar-1", "hosts"),)))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await press(pilot, "tab", "enter")
        assert (app.current_mode, app.screen.subject) == ("hosts", "cedar-1")


async def test_a_need_without_a_row_of_its_own_can_be_read_whole(
    build: Callable[..., Any], snapshot: Any, text_of: Any
) -> None:
    """An operation that failed: at 80 columns the table cuts its text."""
    text = f"Promote hex8_2p:v3 to production: {'the file is not the one that was registered ' * 4}at the end"
    app = build(source=replace(snapshot, needs=(Need(text, "o7", "pulse"),)))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await press(pilot, "tab")
        assert app.screen.subject != "o7"  # no config is called so, and P must not plan for it
        await press(pilot, "enter")
        page = " ".join(" ".join(text_of(app)).split())
        assert "Promote hex8_2p:v3 to production" in page and "at the end" in page
        await press(pilot, "escape")
        assert app.current_mode == "pulse"


async def test_hosts_are_filtered_by_state_and_group(build: Callable[..., Any], text_of: Any) -> None:
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "2", "slash", *"state=drained", "enter")
        page = "\n".join(text_of(app))
        assert "birch-1" in page and "alder-1" not in page
        await press(pilot, "escape", "slash", *"host=gpu", "enter")
        assert "birch-1" in "\n".join(text_of(app))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("hosts list", "dogwood-1"),
        ("hosts show cedar-1", "ssh_port: 22 -> 2222"),
        ("hosts show elm-1", "no such host: elm-1"),
        ("hosts shell local", "cannot be lent to a shell"),
    ],
)
async def test_verbs_about_hosts_lead_to_the_screen(
    line: str, words: str, build: Callable[..., Any], text_of: Any
) -> None:
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "colon", *("space" if c == " " else c for c in line), "enter")
        await pilot.pause()
        assert words in "\n".join(text_of(app))


def test_a_course_is_drawn_with_one_character_a_value() -> None:
    assert UTF8.spark([0.0, 0.5, 1.0, None], 10, 1.0) == "▁▅█ "
    assert ASCII.spark([0.0, 0.5, 1.0, None], 10, 1.0) == "_=# "
    assert UTF8.spark([float(n) for n in range(50)], 8)[-1] == "█"
    assert len(UTF8.spark([1.0] * 50, 8)) == 8
    assert UTF8.spark([0.0, 0.0], 8) == "▁▁"
    assert UTF8.spark([5.0], 8, 1.0) == "█"
    assert UTF8.spark([], 8) == ""


def test_shares_are_unknown_where_a_part_is(snapshot: Any) -> None:
    sample = HostSample(snapshot.taken_at, memory_total=100, memory_used=25, disk_total=100, disk_free=10)
    assert memory_share(sample) == 0.25
    assert disk_share(sample) == pytest.approx(0.9)
    assert gpu_share(sample) is None
    assert memory_share(replace(sample, memory_used=None)) is None
    assert disk_share(replace(sample, disk_total=None)) is None
    gpus = (GpuSample(0, "a", busy=50.0), GpuSample(1, "a"), GpuSample(2, "a", busy=100.0))
    assert gpu_share(replace(sample, gpus=gpus)) == 0.75


def test_a_drained_host_that_is_down_is_down_first_of_all(snapshot: Any) -> None:
    host = snapshot.hosts[2]
    assert state_word(host) == "drained"
    assert state_word(replace(host, state="down")) == "down"


async def test_of_a_pool_nothing_of_its_login_host_is_shown_as_if_its_nodes_had_it(
    build: Callable[..., Any], text_of: Any, snapshot: Any
) -> None:
    looks = {"nodes": {"idle": 2}, "queue": {"pending": 7}, "ours": {"pending": 3}, "rule": "training first go here"}
    host = make_host("cluster", role="", local=True)
    pool = replace(host, facts=host.facts | {"pool": looks})
    app = build(source=replace(snapshot, hosts=(pool,)))
    async with app.run_test(size=(160, 50)) as pilot:
        await press(pilot, "2")
        (line,) = [line for line in text_of(app) if "cluster" in line and "slurm pool" in line]
        assert "1 87%" not in line and "%" not in line.partition("slurm pool")[2][:40]
        await press(pilot, "enter")
        shown = "\n".join(text_of(app))
        for words in ("2 idle", "7 pending", "3 pending", "training first go here", "Login host, and the disk of the"):
            assert words in shown
