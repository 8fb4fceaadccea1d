"""A changed hosts file: told, planned, and used only when somebody has confirmed the plan."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from backend.errors import RefusedError, SettingsError
from backend.fleet import reading
from backend.fleet.hosts import parse_hosts
from backend.fleet.reload import apply_reload, guard_hosts, plan_reload
from backend.fleet.store import host_rows
from backend.jobs.keeper import Keeper
from backend.jobs.model import Job
from backend.overview import read_snapshot
from backend.paths import Paths
from backend.state.store import StateStore
from backend.supervisor import GUARDS, HANDLERS, ensure_running, stop
from ringrift_console.actions import BY_NAME

BEFORE = """\
defaults: {ssh_user: ubuntu}
groups: {gpu: {max_parallel_jobs: 2}}
hosts:
  local: {}
  alder-1: {group: gpu, ssh_host: 198.51.100.7}
  alder-2: {group: gpu, ssh_host: 198.51.100.8}
  birch-1: {ssh_host: birch.example}
"""
AFTER = """\
defaults: {ssh_user: ubuntu}
groups: {gpu: {max_parallel_jobs: 4}}
hosts:
  local: {}
  alder-1: {group: gpu, ssh_host: 198.51.100.7}
  alder-2: {group: gpu, ssh_host: 198.51.100.9}
  cedar-1: {ssh_host: cedar.example, role: trainer}
"""


@pytest.fixture
async def store(paths: Paths) -> AsyncIterator[StateStore]:
    paths.root.mkdir(parents=True)
    paths.hosts_yaml.write_text(BEFORE)
    async with await StateStore.open(paths) as opened:
        yield opened
        await asyncio.to_thread(stop, paths)


def test_what_changes_is_told_host_by_host_and_for_a_group_once() -> None:
    found = reading.differences(parse_hosts(BEFORE, "a"), parse_hosts(AFTER, "b"))
    assert [(change.subject, change.before, change.after) for change in found] == [
        ("host cedar-1", "", "new: trainer, cedar.example"),
        ("host birch-1", "used", "taken out"),
        ("max_parallel_jobs", "2", "4 (alder-1 alder-2)"),
        ("ssh_host", "198.51.100.8", "198.51.100.9 (alder-2)"),
    ]
    many = "hosts: {" + ", ".join(f"h{n}: {{group: gpu}}" for n in range(9)) + "}\n"
    old, new = (parse_hosts(f"groups: {{gpu: {{ssh_user: {user}}}}}\n{many}", "c") for user in ("ann", "ben"))
    (change,) = reading.differences(old, new)
    assert (change.subject, change.before, change.after) == ("ssh_user", "ann", "ben (h0 h1 h2 h3 and 5 more)")


async def slots(keeper: Keeper) -> dict[str, int]:
    """Where a job that waits could run, as the keeper sees it now."""
    await keeper._describe()
    return {one.name: one.slots for one in await keeper._slots((Job("s1", 1, "selfplay"),))}


async def test_a_change_is_shown_and_not_used_before_it_is_confirmed(store: StateStore, paths: Paths) -> None:
    reading.begin(paths)
    keeper = Keeper(paths, store, {}, "owner", 1)
    assert (await slots(keeper))["alder-1"] == 2
    paths.hosts_yaml.write_text(AFTER)
    assert list(await slots(keeper)) == ["local", "alder-1", "alder-2", "birch-1"]
    changed = {row.name: row.changed for row in await host_rows(store)}
    assert changed == {
        "local": (),
        "alder-1": ("max_parallel_jobs: 2 -> 4",),
        "alder-2": ("max_parallel_jobs: 2 -> 4", "ssh_host: 198.51.100.8 -> 198.51.100.9"),
        "cedar-1": ("new in the hosts file",),
        "birch-1": ("taken out of the hosts file",),
    }
    snapshot = await read_snapshot(paths)
    assert any("the hosts file has changed (alder-1, alder-2" in need.text for need in snapshot.needs)
    assert BY_NAME["hosts.reload"].available(snapshot, None) is None

    plan = await plan_reload(paths)
    assert len(plan.changes) == 4 and plan.guard == {"hosts file": await guard_hosts(paths, store, "file")}
    operation = store.bound(await store.submit(plan))
    for _ in range(2):  # again after a crash
        assert await apply_reload(paths, plan, operation) == {"hosts": 4}
    assert await slots(keeper) == {
        "local": 1,
        "alder-1": 4,
        "alder-2": 4,
        "cedar-1": 1,
    }
    assert all(row.changed == () for row in await host_rows(store))
    assert [event.type for event in await store.events()].count("HOSTS_RELOADED") == 1
    with pytest.raises(RefusedError, match="already"):
        await plan_reload(paths)


async def test_a_file_that_changed_after_the_plan_or_has_a_mistake_is_not_used(store: StateStore, paths: Paths) -> None:
    with pytest.raises(RefusedError, match="no supervisor"):
        await plan_reload(paths)
    reading.begin(paths)
    paths.hosts_yaml.write_text(AFTER)
    plan = await plan_reload(paths)
    paths.hosts_yaml.write_text(AFTER.replace("max_parallel_jobs: 4", "max_parallel_jobs: 400"))
    assert await guard_hosts(paths, store, "file") != plan.guard["hosts file"]
    with pytest.raises(RefusedError, match="has changed since"):
        await apply_reload(paths, plan, store)
    paths.hosts_yaml.write_text("hosts:\n  a: {ssh_port: x}\n")
    with pytest.raises(SettingsError, match="line 2"):
        await plan_reload(paths)
    used = reading.load_in_use(paths)
    assert used is not None and [host.name for host in used.hosts] == ["local", "alder-1", "alder-2", "birch-1"]
    assert {"hosts.reload"} <= HANDLERS.keys() and "hosts" in GUARDS


async def test_a_crash_keeps_what_was_in_use_and_an_ordered_stop_lets_the_file_be_read(
    store: StateStore, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading.begin(paths)
    paths.hosts_yaml.write_text(AFTER)
    reading.begin(paths)  # as after a crash
    assert reading.load_in_use(paths) != parse_hosts(AFTER, "x")
    await asyncio.to_thread(ensure_running, paths)
    assert {row.name: row.changed for row in await host_rows(store)}["cedar-1"] == ("new in the hosts file",)
    await asyncio.to_thread(stop, paths)
    assert reading.load_in_use(paths) is None
    await asyncio.to_thread(ensure_running, paths)
    assert all(row.changed == () for row in await host_rows(store))
    other = paths.root / "other.yaml"
    other.write_text("hosts: {local: {}}\n")
    monkeypatch.setenv("RINGRIFT_HOSTS", str(other))
    assert (await plan_reload(paths)).changes[0].subject == "hosts file"
    reading.begin(paths)  # another file was named at the start
    assert reading.source_in_use(paths) == str(other)


async def test_without_a_hosts_file_this_machine_is_in_use_alone(paths: Paths) -> None:
    reading.begin(paths)
    used = reading.load_in_use(paths)
    assert used is not None and [host.name for host in used.hosts] == ["local"]
