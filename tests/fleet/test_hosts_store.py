"""Hosts in state.db: rows, samples, draining, and what has changed since the supervisor read the file."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from backend.errors import NotFoundError, RefusedError, SettingsError
from backend.fleet import watch as watching
from backend.fleet.errors import HostKeyChanged, HostKeyUnknown, LinkLost
from backend.fleet.hosts import Host, load_hosts, parse_hosts
from backend.fleet.known_hosts import HostKey, enrol_key
from backend.fleet.look import look_at, look_at_all
from backend.fleet.plans import (
    apply_drain,
    apply_probe,
    apply_undrain,
    guard_host,
    plan_drain,
    plan_probe,
    plan_undrain,
)
from backend.fleet.probe import Clock, Report
from backend.fleet.reading import begin
from backend.fleet.remote import ThisMachine
from backend.fleet.shell import shell_argv
from backend.fleet.store import (
    SAMPLES_KEPT,
    SAMPLES_SHOWN,
    STALE_S,
    address,
    host_rows,
    make_rows,
    record_report,
    record_trouble,
)
from backend.overview import read_snapshot
from backend.paths import Paths
from backend.snapshot import HostRow, HostSample
from backend.state.store import StateStore
from backend.supervisor import GUARDS, HANDLERS

KEY = HostKey("ssh-ed25519", "AAAAC3NzaC1lZDI1NTE5AAAAIBWKKKPsBHqxkvrhGsgCDYEbJ5nTSVpdMLCgc8xgpUSW")
TEXT = """\
hosts:
  local: {role: coordinator}
  alder-1: {ssh_host: 198.51.100.7, ssh_user: ubuntu, ssh_port: 2222, role: gpu_selfplay, max_parallel_jobs: 4}
  birch-1: {ssh_host: birch.example, status: retired}
"""


@pytest.fixture
def fleet(paths: Paths) -> Paths:
    paths.console.mkdir(parents=True)
    paths.hosts_yaml.write_text(TEXT)
    return paths


def report(at: float, **facts: Any) -> Report:
    sample = HostSample(datetime.fromtimestamp(at, UTC), load=1.5, memory_total=100, memory_used=25)
    return Report(sample.at, facts or None, sample, Clock(0.0, 0.1), 12.34)


async def row_of(store: StateStore, name: str) -> HostRow:
    return next(row for row in await host_rows(store) if row.name == name)


async def test_hosts_are_those_of_the_file_in_its_order(fleet: Paths) -> None:
    async with await StateStore.open(fleet) as store:
        rows = await host_rows(store)
    assert [(row.name, row.state) for row in rows] == [("local", "up"), ("alder-1", "new"), ("birch-1", "off")]
    assert rows[1].address == "ubuntu@198.51.100.7:2222"
    assert (rows[1].slots, rows[0].address) == (4, "")


async def test_an_answer_is_kept_and_grows_old(fleet: Paths) -> None:
    enrol_key(fleet.console / "known_hosts", "alder-1", KEY)
    now = time.time()
    async with await StateStore.open(fleet) as store:
        assert (await row_of(store, "alder-1")).state == "unknown"
        await record_report(store, "alder-1", report(now, cpus=64))
        row = await row_of(store, "alder-1")
        assert (row.state, row.facts["cpus"], row.latency_ms) == ("up", 64, 12.3)
        assert row.fingerprint == KEY.fingerprint
        assert row.samples[-1].load == 1.5
        await record_report(store, "alder-1", report(now - STALE_S - 60))
        row = await row_of(store, "alder-1")
        assert row.state == "unknown"
        assert row.facts["cpus"] == 64, "a sample leaves the facts alone"


async def test_samples_are_kept_up_to_a_number(fleet: Paths) -> None:
    now = time.time()
    async with await StateStore.open(fleet) as store:
        for n in range(SAMPLES_KEPT + 10):
            await record_report(store, "local", report(now + n), silent=True)
        async with store.database.read() as db:
            row = await db.one("SELECT count(*), min(at) FROM host_samples")
        assert row is not None
        assert (row[0], row[1]) == (SAMPLES_KEPT, pytest.approx(now + 10, abs=0.001))
        shown = (await row_of(store, "local")).samples
        assert len(shown) == SAMPLES_SHOWN
        assert shown[-1].at.timestamp() == pytest.approx(now + SAMPLES_KEPT + 9)


async def test_looks_that_come_round_leave_the_revision_alone(fleet: Paths) -> None:
    async with await StateStore.open(fleet) as store:
        before = await store.revision()
        await record_report(store, "local", report(time.time()), silent=True)
        await record_trouble(store, "alder-1", "down", "no connection", silent=True)
        assert await store.revision() == before


async def test_the_last_troubles_are_kept_without_repeating_themselves(fleet: Paths) -> None:
    async with await StateStore.open(fleet) as store:
        for n in range(20):
            await record_trouble(store, "alder-1", "down", f"trouble {n // 2}")
        row = await row_of(store, "alder-1")
    assert [trouble.text for trouble in row.troubles] == [f"trouble {n}" for n in (9, 8, 7, 6, 5)]


class Broken:
    """A way on which everything fails in one manner."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def exec(self, *_: Any, **__: Any) -> Any:
        raise self.error

    async def put(self, *_: Any, **__: Any) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (LinkLost("gone", where="alder-1"), "down"),
        (HostKeyUnknown("never seen", where="alder-1"), "new"),
        (HostKeyChanged("another key", where="alder-1"), "refused"),
    ],
)
async def test_what_went_wrong_decides_the_state(fleet: Paths, error: Exception, state: str) -> None:
    if state != "new":
        enrol_key(fleet.console / "known_hosts", "alder-1", KEY)
    host = load_hosts(fleet.hosts_yaml).get("alder-1")
    assert host is not None
    async with await StateStore.open(fleet) as store:
        with pytest.raises(type(error)):
            await look_at(store, Broken(error), host)
        row = await row_of(store, "alder-1")
    assert row.state == state
    assert row.troubles[0].text == str(error)


async def test_one_host_that_fails_does_not_hold_up_the_others(fleet: Paths, here: ThisMachine) -> None:
    bad = Host("cedar-1", {"python_path": "/nowhere/python3"})
    async with await StateStore.open(fleet) as store:
        answers = await look_at_all(store, here, [bad, Host("alder-1", {"ssh_host": "alder-1"}), Host("local")])
        assert isinstance(answers["alder-1"], Report) and isinstance(answers["local"], Report)
        assert "no /nowhere/python3" in str(answers["cedar-1"])


async def test_a_host_is_drained_and_undrained_once(fleet: Paths) -> None:
    plan = await plan_drain(fleet, host="alder-1", reason="new memory")
    assert plan.guard == {"host alder-1": "open"}
    async with await StateStore.open(fleet) as store:
        for _ in range(2):
            await apply_drain(fleet, plan, store)
        assert (await row_of(store, "alder-1")).drained == "new memory"
        assert await guard_host(fleet, store, "alder-1") == "drained"
        assert [event.type for event in await store.events()] == ["HOST_DRAINED"]
        with pytest.raises(RefusedError, match="drained already"):
            await plan_drain(fleet, host="alder-1")
        back = await plan_undrain(fleet, host="alder-1")
        for _ in range(2):
            await apply_undrain(fleet, back, store)
        assert (await row_of(store, "alder-1")).drained is None
    with pytest.raises(RefusedError, match="not drained"):
        await plan_undrain(fleet, host="alder-1")


@pytest.mark.parametrize("plan", [plan_drain, plan_undrain, plan_probe])
async def test_a_plan_for_a_host_that_is_not_there_is_refused(fleet: Paths, plan: Any) -> None:
    with pytest.raises(NotFoundError, match="no such host: elm-1"):
        await plan(fleet, host="elm-1")


async def test_plans_leave_no_database_behind(fleet: Paths) -> None:
    await plan_drain(fleet, host="alder-1")
    await plan_probe(fleet, host=[])
    assert not fleet.state_db.exists()


async def test_a_probe_of_this_machine_is_an_operation_like_any_other(fleet: Paths) -> None:
    plan = await plan_probe(fleet, host="local")
    async with await StateStore.open(fleet) as store:
        assert await apply_probe(fleet, plan, store) == {"up": ["local"], "trouble": {}}
        row = await row_of(store, "local")
        assert row.facts["folder"] == str(fleet.root)
        assert row.samples[-1].disk_free is not None


def test_every_plan_about_hosts_has_its_handler_and_its_guard() -> None:
    assert {"hosts.drain", "hosts.undrain", "hosts.probe", "hosts.enrol", "hosts.bootstrap"} <= HANDLERS.keys()
    assert "host" in GUARDS


async def test_what_has_changed_since_the_supervisor_read_the_file_is_told(fleet: Paths) -> None:
    async with await StateStore.open(fleet) as store:
        begin(fleet)
        assert (await row_of(store, "alder-1")).changed == ()
        fleet.hosts_yaml.write_text(TEXT.replace("2222", "22").replace(", max_parallel_jobs: 4", ""))
        changed = (await row_of(store, "alder-1")).changed
    assert changed == ("max_parallel_jobs: 4 -> not set", "ssh_port: 2222 -> 22")


async def test_the_watch_looks_at_this_machine_and_goes_on_after_a_mistake(fleet: Paths) -> None:
    async with await StateStore.open(fleet) as store:
        watch = watching.Watch(fleet, store)
        await watch.round()
        row = await row_of(store, "local")
        assert row.facts["hostname"] and len(row.samples) == 1
        fleet.hosts_yaml.write_text("hosts: [")
        await watch.round()
        fleet.hosts_yaml.write_text(TEXT)
        assert len((await row_of(store, "local")).samples) == 2


async def test_the_watch_leaves_hosts_alone_that_wait_for_an_operator(fleet: Paths, here: ThisMachine) -> None:
    async with await StateStore.open(fleet) as store:
        watch = watching.Watch(fleet, store, here)
        await watch.round()
        assert (await row_of(store, "alder-1")).seen_at is None, "its key is not enrolled"
        enrol_key(fleet.console / "known_hosts", "alder-1", KEY)
        await record_trouble(store, "alder-1", "refused", "another key")
        await watch.round()
        assert (await row_of(store, "alder-1")).state == "refused"
        await record_trouble(store, "alder-1", "unknown", "")
        await watch.round()
        assert (await row_of(store, "alder-1")).state == "up"
        assert (await row_of(store, "birch-1")).seen_at is None, "it is retired"


async def test_a_host_that_is_down_is_tried_again_in_time_whatever_the_clock_says(
    fleet: Paths, here: ThisMachine
) -> None:
    async with await StateStore.open(fleet) as store:
        now = 0.0
        watch = watching.Watch(fleet, store, here, monotonic=lambda: now)
        enrol_key(fleet.console / "known_hosts", "alder-1", KEY)
        await watch.round()
        await record_trouble(store, "alder-1", "down", "no answer")
        async with store.database.write() as db:  # as if the clock had been an hour ahead when it was noted
            await db.run(
                "UPDATE hosts SET troubles = json_set(troubles, '$[0][0]', ?) WHERE name = 'alder-1'",
                (time.time() + 3600,),
            )
        now = watching.DOWN_S - 1
        await watch.round()
        assert (await row_of(store, "alder-1")).state == "down"
        now = watching.DOWN_S
        await watch.round()
        assert (await row_of(store, "alder-1")).state == "up"


async def test_a_host_whose_connection_broke_is_looked_at_once_and_not_for_ever(
    fleet: Paths, here: ThisMachine
) -> None:
    async with await StateStore.open(fleet) as store:
        now = 0.0
        watch = watching.Watch(fleet, store, here, monotonic=lambda: now)
        enrol_key(fleet.console / "known_hosts", "alder-1", KEY)
        await watch.round()
        again = watching.AGAIN_S
        for then, samples in ((1.0, 1), (again, 2), (again + 1, 2), (2 * again, 3)):
            now = then
            await watch.round({"alder-1"})
            assert len((await row_of(store, "alder-1")).samples) == samples
        assert len((await row_of(store, "local")).samples) == 1


async def test_a_snapshot_has_the_hosts_with_and_without_a_database(fleet: Paths) -> None:
    assert [host.name for host in (await read_snapshot(fleet)).hosts] == ["local", "alder-1", "birch-1"]
    assert not fleet.state_db.exists()
    async with await StateStore.open(fleet) as store:
        enrol_key(fleet.console / "known_hosts", "alder-1", KEY)
        await record_trouble(store, "alder-1", "refused", "another key")
    snapshot = await read_snapshot(fleet)
    assert snapshot.hosts[1].state == "refused"
    assert any(need.screen == "hosts" and need.subject == "alder-1" for need in snapshot.needs)


async def test_a_hosts_file_with_a_mistake_is_a_need_with_its_line(fleet: Paths) -> None:
    fleet.hosts_yaml.write_text("hosts:\n  a: {ssh_port: x}\n")
    snapshot = await read_snapshot(fleet)
    assert snapshot.hosts == ()
    assert any("line 2" in need.text for need in snapshot.needs)
    with pytest.raises(SettingsError):
        await plan_drain(fleet, host="a")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ("{ssh_host: a.example}", "a.example"),
        ("{ssh_host: a.example, ssh_user: me, ssh_port: 2022}", "me@a.example:2022"),
        ("{}", "h"),
    ],
)
def test_addresses_are_written_as_people_write_them(settings: str, text: str) -> None:
    host = parse_hosts(f"hosts:\n  h: {settings}\n", "h.yaml").hosts[0]
    assert address(host) == text


def test_the_shell_checks_the_enrolled_key(fleet: Paths) -> None:
    host = load_hosts(fleet.hosts_yaml).get("alder-1")
    assert host is not None
    argv = shell_argv(host, fleet)
    assert argv[0] == "ssh" and argv[-1] == "198.51.100.7"
    assert f"UserKnownHostsFile={fleet.console / 'known_hosts'}" in argv
    assert "HostKeyAlias=alder-1" in argv
    assert argv[argv.index("-p") + 1] == "2222"


def test_rows_need_no_database(fleet: Paths) -> None:
    rows = make_rows(load_hosts(fleet.hosts_yaml), time.time())
    assert [row.drained for row in rows] == [None, None, None]
