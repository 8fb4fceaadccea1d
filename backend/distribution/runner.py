"""Carries transfers out: asks the reconciler what is next, does it, and stores what came of it.

Nothing is held here that is not in ``state.db`` or on the hosts. A supervisor that was killed leaves engines that end
with their lease or with their connection; the next one puts what was under way back into the queue, and whatever the
hosts have is found and used.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.crash import crash_point
from backend.distribution import ledger, loadable, receiver, states
from backend.distribution import reconcile as todo
from backend.distribution.away import Away
from backend.distribution.behind import Behind
from backend.distribution.budgets import MBIT, least
from backend.distribution.described import hosts_described
from backend.distribution.ledger import Placed, Transfer
from backend.distribution.limiter import Limiter
from backend.distribution.manifest import make_payload
from backend.distribution.reasons import Course, Failure, Reason
from backend.distribution.reconcile import Facts, HostFacts
from backend.distribution.same_bytes import Part, second_in_line
from backend.distribution.states import LIVE, WORKING, State, step
from backend.distribution.transports.base import (
    RENEW_S,
    Budget,
    Delivery,
    Group,
    Means,
    Observation,
    Payload,
    Source,
    Target,
)
from backend.distribution.transports.registry import REFERENCES, transport
from backend.errors import RingRiftError
from backend.fleet.hosts import Host, Hosts
from backend.paths import Paths
from backend.state.store import StateStore

if TYPE_CHECKING:
    from backend.distribution.receiving import Prepared, Receivers
    from backend.fleet.ssh import SshPool

TICK_S = 0.25
IDLE_S = 1.0
TELL_S = 0.5
BUSY_S, BUSY_MOST_S = 0.5, 60.0
TROUBLE_S = 2.0
RELEASE_S = 10.0
"""Time in which a stage that cannot be removed is tried again."""
AWAY_S = 5.0
"""Time between two looks after which this process was away."""

log = logging.getLogger("ringrift.supervisor")


@dataclass(slots=True)
class _HostWork:
    """What is known of one delivery beside its row."""

    busy: bool = False
    held: bool = False
    ready_at: float | None = None
    target: Target | None = None
    store: str = ""
    have: int = -1
    gained_at: float = 0.0
    behind_since: float | None = None
    failures: int = 0
    failed_at: float = float("-inf")


@dataclass(slots=True)
class _Work:
    """A transfer that this supervisor has taken up."""

    began: float
    hosts: dict[str, _HostWork] = field(default_factory=dict)
    payload: Payload | None = None
    deliveries: dict[str, Delivery] = field(default_factory=dict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    told: float = 0.0
    renewed: dict[str, float] = field(default_factory=dict)
    offered: set[str] = field(default_factory=set)
    budgets: dict[str, Budget] = field(default_factory=dict)
    behind: dict[str, Behind] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def of(self, host: str) -> _HostWork:
        return self.hosts.setdefault(host, _HostWork())


class Runner:
    """All transfers of one root.

    Args:
        pool: gives the connections to hosts.
        owner, epoch: name this root and this supervisor towards hosts.
    """

    def __init__(self, paths: Paths, store: StateStore, pool: Callable[[], SshPool], owner: str, epoch: int) -> None:
        self.paths, self.store, self.owner, self.epoch = paths, store, owner, epoch
        self._pool = pool
        self._works: dict[str, _Work] = {}
        self._receivers: Receivers | None = None
        self._limits = Limiter(store)
        self._hosts = Hosts((), "")
        self._facts: dict[str, dict[str, Any]] = {}
        self._many: frozenset[str] = frozenset()
        self._away = Away(time.monotonic(), AWAY_S)

    async def run(self) -> None:
        """Works until it is cancelled; then engines are left to end by themselves or to be taken up."""
        try:
            while True:
                pause = IDLE_S
                try:
                    if await self.tick():
                        pause = TICK_S
                except RingRiftError as error:
                    log.error("%s", error.line())
                    pause = TROUBLE_S
                except Exception:  # one transfer's trouble must not end all the others
                    log.exception("the distribution stumbled")
                    pause = TROUBLE_S
                await asyncio.sleep(pause)
        finally:
            await self.close()

    async def close(self) -> None:
        """Ends what is under way here."""
        tasks = [task for work in self._works.values() for task in work.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for work in self._works.values():
            await asyncio.gather(*(one.close() for one in work.deliveries.values()), return_exceptions=True)
        self._works.clear()

    async def tick(self) -> bool:
        """One look at everything; whether anything is open."""
        # Rows of hosts that are worked on now may change after they were read, so nothing is decided of them below.
        for about in [one for known in self._works.values() for one in known.hosts.values()]:
            about.held = about.busy
        self._excuse(time.monotonic())
        transfers = await ledger.open_transfers(self.store)
        for name in self._works.keys() - {transfer.id for transfer in transfers}:
            await self._leave(self._works.pop(name))
        if not transfers:
            return False
        await self._describe()
        loads, second = _loads(transfers), second_in_line(_parts(transfers))
        named = {row.host for transfer in transfers for row in transfer.rows}
        await self._limits.look(transfers, {name: mbit for name in named if (mbit := self._mbit(name))})
        for transfer in transfers:
            work = self._works.get(transfer.id)
            if work is None:
                work = self._works[transfer.id] = _Work(time.monotonic())
                transfer = await self._take_up(transfer)
            await self._look_after(transfer, work)
            for action in todo.reconcile(transfer, self._facts_of(transfer, work, loads, second)):
                await self._act(transfer, work, action)
        return True

    def _excuse(self, now: float) -> None:
        """No host has stalled for the time in which this process was away."""
        missed = self._away.look(now)
        for about in [one for work in self._works.values() for one in work.hosts.values()] if missed else ():
            about.gained_at += missed

    async def _describe(self) -> None:
        self._hosts = await hosts_described(self.paths)
        self._facts = await ledger.host_facts(self.store)
        if not self._many:
            self._many = frozenset(name for name in REFERENCES if transport(name).many)

    async def _take_up(self, transfer: Transfer) -> Transfer:
        """What an earlier supervisor had under way goes back into the queue."""
        for row in transfer.rows:
            if row.delivery.state in WORKING:
                await ledger.save(self.store, transfer, row.delivery, step(row.delivery, states.Interrupted()))
        return await ledger.find(self.store, transfer.id)

    async def _leave(self, work: _Work) -> None:
        for task in work.tasks:
            task.cancel()
        await asyncio.gather(*work.tasks, return_exceptions=True)
        await asyncio.gather(*(one.close() for one in work.deliveries.values()), return_exceptions=True)

    # looking

    def _facts_of(
        self, transfer: Transfer, work: _Work, loads: Mapping[str, int], second: Collection[tuple[str, str]]
    ) -> Facts:
        found = {}
        for row in transfer.rows:
            about = work.of(row.host)
            found[row.host] = HostFacts(
                about.busy or about.held, about.ready_at, self._seen(work, row), about.gained_at, about.failures,
                about.failed_at,
                loads.get(row.host, 0) - (row.delivery.state in WORKING), self._mbit(row.host), about.behind_since,
                (transfer.id, row.host) in second,
            )  # fmt: skip
        return Facts(time.monotonic(), time.time(), work.began, found, self._many, frozenset(work.deliveries))

    def _seen(self, work: _Work, row: Placed) -> Observation | None:
        delivery = work.deliveries.get(row.delivery.transport)
        if delivery is None or row.delivery.state not in (State.FETCHING, State.PUBLISHED):
            return None
        return delivery.observe().get(row.host)

    def _mbit(self, host: str) -> float | None:
        found = self._hosts.get(host)
        value = found.settings.get("bandwidth_mbps") if found is not None else None
        return float(value) if value else None

    async def _look_after(self, transfer: Transfer, work: _Work) -> None:
        """Notes what has come, tells readers, renews leases, and hands new sources and budgets on."""
        now = time.monotonic()
        seen = {}
        for row in transfer.rows:
            one = self._seen(work, row)
            if one is not None:
                seen[row.host] = one
                about = work.of(row.host)
                if one.have > about.have or one.waits:
                    about.have, about.gained_at = max(one.have, about.have), now
        self._follow(transfer, work, seen, now)
        if seen and now - work.told >= TELL_S:
            work.told = now
            use = {name: vars_of(delivery.head()) for name, delivery in work.deliveries.items()}
            await ledger.record_progress(self.store, transfer.id, seen, use)
        await self._limits.tell(transfer)
        if work.deliveries:
            await self._offer(transfer, work)
            self._renew(transfer, work, now)

    def _follow(self, transfer: Transfer, work: _Work, seen: Mapping[str, Observation], now: float) -> None:
        """Notes who is far behind the others that fetch in the same way."""
        budget = self._limits.of(transfer)
        rates: dict[str, dict[str, float]] = {}
        for row in transfer.rows:
            work.of(row.host).behind_since = None
            one = seen.get(row.host)
            if row.delivery.state is State.FETCHING and one is not None and not one.ended and not one.waits:
                rates.setdefault(row.delivery.transport, {})[row.host] = one.rate
        for name, found in rates.items():
            known = {host: least((self._mbit(host) or 0) * MBIT, budget.down(host)) for host in found}
            able = {host: limit for host, limit in known.items() if limit}
            for host, since in work.behind.setdefault(name, Behind()).look(now, found, able).items():
                work.of(host).behind_since = since

    async def _offer(self, transfer: Transfer, work: _Work) -> None:
        fresh = []
        for row in transfer.rows:
            about = work.of(row.host)
            if row.delivery.state is State.PUBLISHED and row.host not in work.offered and about.target is not None:
                work.offered.add(row.host)
                target = about.target
                fresh.append(Source(target.host, about.store, target.folder, target.lease, target.facts))
        if fresh:
            await asyncio.gather(*(one.offer(fresh) for one in work.deliveries.values()))
        budget = self._limits.of(transfer)
        late = [name for name in work.deliveries if work.budgets.get(name) != budget]
        work.budgets |= dict.fromkeys(late, budget)
        for name in late:  # what they had before says nothing of what they will have
            work.behind.pop(name, None)
        await asyncio.gather(*(work.deliveries[name].limit(budget) for name in late))

    def _renew(self, transfer: Transfer, work: _Work, now: float) -> None:
        for row in transfer.rows:
            running = row.delivery.state in WORKING or row.delivery.state is State.PUBLISHED
            if running and now - work.renewed.get(row.host, 0.0) >= RENEW_S:
                work.renewed[row.host] = now
                self._spawn(work, self._renew_one(row.host))

    async def _renew_one(self, name: str) -> None:
        from backend.distribution.receiving import ReceiverError

        try:
            host = self._hosts.get(name)
            if host is not None:
                await self._talk().renew(host)
        except ReceiverError as error:
            log.info("%s: %s", name, error)

    def _talk(self) -> Receivers:
        from backend.distribution.receiving import Receivers

        pool = self._pool()
        if self._receivers is None or self._receivers.pool is not pool:
            self._receivers = Receivers(pool, self.owner)
        return self._receivers

    def _means(self) -> Means:
        private = self.paths.console / "distribution"
        private.mkdir(mode=0o700, exist_ok=True)
        return Means(self.paths, self._pool(), self._hosts, self.owner, private)

    # acting

    def _spawn(self, work: _Work, doing: Any) -> None:
        task = asyncio.create_task(doing)
        work.tasks.add(task)
        task.add_done_callback(work.tasks.discard)

    async def _act(self, transfer: Transfer, work: _Work, action: todo.Action) -> None:
        rows = {row.host: row for row in transfer.rows}
        match action:
            case todo.Pause(why):
                await ledger.set_paused(self.store, transfer.id, why, event="TRANSFER_PAUSED")
            case todo.Queue(host):
                await self._save(transfer, rows[host], states.Queue())
            case todo.Prepare(host):
                row = await self._save(transfer, rows[host], states.Ask())
                self._begin(transfer, work, [row], self._prepare(transfer, work, row))
            case todo.Begin(name, hosts):
                started = [await self._save(transfer, rows[host], states.Start()) for host in hosts]
                self._begin(transfer, work, started, self._start(transfer, work, name, started))
            case todo.Finish(host):
                row = rows[host]
                if row.delivery.state is State.FETCHING:
                    row = await self._save(transfer, row, states.Arrived())
                row = await self._save(transfer, row, states.Check())
                self._begin(transfer, work, [row], self._finish(transfer, work, row))
            case todo.Stop(host, failure):
                self._begin(
                    transfer, work, [rows[host]], self._stop(transfer, work, rows[host], states.Failed(failure))
                )
            case todo.Interrupt(host):
                self._begin(transfer, work, [rows[host]], self._stop(transfer, work, rows[host], states.Interrupted()))
            case todo.Cancel(host):
                self._begin(transfer, work, [rows[host]], self._stop(transfer, work, rows[host], states.Cancel()))
            case todo.Release(hosts):
                for host in hosts:
                    self._begin(transfer, work, [rows[host]], self._release(transfer, work, rows[host]))

    def _begin(self, transfer: Transfer, work: _Work, rows: list[Placed], doing: Any) -> None:
        """Does something with hosts that nothing else is done with meanwhile."""

        async def guarded() -> None:
            try:
                await doing
            except RingRiftError as error:
                log.error("%s: %s", transfer.id, error.line())
                await asyncio.sleep(TROUBLE_S)
            except Exception as error:  # a mistake of ours: no reason to begin it anew for ever
                log.exception("transfer %s stumbled", transfer.id)
                await asyncio.sleep(TROUBLE_S)
                what = f"this machine made a mistake: {error!r}"
                await self._give_back(transfer, work, rows, Failure(Reason.ENGINE, what, "look into supervisor.log"))
            finally:
                for row in rows:
                    work.of(row.host).busy = False

        for row in rows:
            work.of(row.host).busy = True
        self._spawn(work, guarded())

    async def _give_back(self, transfer: Transfer, work: _Work, rows: list[Placed], failure: Failure) -> None:
        """Fails what broke off without a word, as an engine's failure is: tried again a little, then given up."""
        hosts = {row.host for row in rows}
        try:
            for row in (await ledger.find(self.store, transfer.id)).rows:
                if row.host in hosts and row.delivery.state in WORKING:
                    await self._end_engine(work, row)
                    await self._fail(transfer, work, row, failure)
        except Exception:  # it is found unattended at the next look, and begun anew
            log.exception("transfer %s stumbled again", transfer.id)

    async def _save(
        self, transfer: Transfer, row: Placed, event: states.Event, receipt: Mapping[str, Any] | None = None
    ) -> Placed:
        after = step(row.delivery, event)
        await ledger.save(self.store, transfer, row.delivery, after, receipt)
        crash_point(f"transfer.{after.state}")
        return Placed(after, row.position, row.wave, row.fell_at)

    async def _fail(self, transfer: Transfer, work: _Work, row: Placed, failure: Failure) -> None:
        about = work.of(row.host)
        about.failures += 1
        about.failed_at = time.monotonic()
        about.ready_at = None
        if failure.reason is Reason.CORRUPT:  # perhaps the file here is not the one any more that was read
            work.payload = None
        if failure.reason is Reason.NOT_LOADABLE and await asyncio.to_thread(loads_here, transfer):
            what, hint = f"{failure.what}, but it loads here", "mend the host's Python or torch, then retry"
            failure = Failure(Reason.NOT_LOADABLE_THERE, what, hint)
        log.info("%s to %s: %s", transfer.id, row.host, failure.line())
        if failure.reason.course is Course.HALT:  # told first, so that no crash in between hides it
            log.error("%s is stopped: %s", transfer.id, failure.line())
            await self.store.add_event(
                "TRANSFER_HALTED", transfer.id, {"title": f"{transfer.title}: {failure.line()}", "host": row.host},
                key=f"transfer {transfer.id} halted {row.delivery.attempts}",
            )  # fmt: skip
        await self._save(transfer, row, states.Failed(failure))

    async def _payload(self, transfer: Transfer, work: _Work) -> Payload | Failure:
        """The file here, read once a supervisor's life; a failure when it is not the one that was planned."""
        async with work.lock:
            if work.payload is None:
                try:
                    found = await asyncio.to_thread(make_payload, Path(transfer.path), transfer.kind)
                except RingRiftError as error:
                    return Failure(Reason.SOURCE_CHANGED, error.line(), "bring the file back, then retry")
                if found.sha256 != transfer.sha256:
                    what = f"{transfer.path} has SHA-256 {found.sha256[:12]} now, planned was {transfer.sha256[:12]}"
                    return Failure(Reason.SOURCE_CHANGED, what, "plan it again")
                work.payload = found
            return work.payload

    def _host(self, name: str) -> Host | Failure:
        return self._hosts.get(name) or Failure(Reason.REFUSED, "the hosts file has no such host", "put it back")

    async def _prepare(self, transfer: Transfer, work: _Work, row: Placed) -> None:
        from backend.distribution.receiving import ReceiverError

        payload, host = await self._payload(transfer, work), self._host(row.host)
        for failure in (payload, host):
            if isinstance(failure, Failure):
                await self._fail(transfer, work, row, failure)
                return
        assert isinstance(payload, Payload) and isinstance(host, Host)
        talk = self._talk()
        try:
            there = await talk.prepare(host, payload, transfer.name, transfer.number)
            good = await talk.pieces(host, payload) if there.have and not there.stored else b""
        except ReceiverError as error:
            await self._fail(transfer, work, row, error.failure)
            return
        about = work.of(row.host)
        facts = self._facts.get(row.host, {})
        about.target = Target(host, row.position, there.folder, there.lease, good, facts, self._mbit(row.host))
        about.store, about.have, about.gained_at = there.store, -1, time.monotonic()
        if there.stored or _whole(there, good, payload):
            row = await self._save(transfer, row, states.Check())
            await self._finish(transfer, work, row)
        elif not row.delivery.transport:
            await self._fail(transfer, work, row, Failure(Reason.NO_ROUTE, "no transport is left"))
        else:
            about.ready_at = time.monotonic()

    async def _start(self, transfer: Transfer, work: _Work, name: str, rows: list[Placed]) -> None:
        payload = await self._payload(transfer, work)
        if isinstance(payload, Failure):
            for row in rows:
                await self._fail(transfer, work, row, payload)
            return
        targets = []
        for row in rows:
            about = work.of(row.host)
            assert about.target is not None
            about.ready_at, about.have, about.gained_at = None, -1, time.monotonic()
            targets.append(about.target)
        async with work.lock:
            delivery = work.deliveries.get(name)
            try:
                if delivery is not None:
                    await delivery.join(targets)
                    return
                budget = work.budgets[name] = self._limits.of(transfer)
                group = Group(
                    f"{transfer.id}-{name}", payload, tuple(targets), tuple(self._sources(transfer, work)),
                    budget, self.epoch,
                )  # fmt: skip
                work.deliveries[name] = await transport(name).start(self._means(), group)
            except Exception as error:  # an engine must not raise; when it does, the next one has its turn
                log.exception("transport %s did not start", name)
                failure = Failure(Reason.ENGINE, f"{name}: {error}")
                for row in rows:
                    await self._fail(transfer, work, row, failure)

    def _sources(self, transfer: Transfer, work: _Work) -> Iterable[Source]:
        for row in transfer.rows:
            about = work.of(row.host)
            if row.delivery.state is State.PUBLISHED and about.target is not None:
                work.offered.add(row.host)
                target = about.target
                yield Source(target.host, about.store, target.folder, target.lease, target.facts)

    async def _finish(self, transfer: Transfer, work: _Work, row: Placed) -> None:
        from backend.distribution.receiving import ReceiverError

        host, payload = self._host(row.host), await self._payload(transfer, work)
        if isinstance(host, Failure) or isinstance(payload, Failure):
            await self._fail(transfer, work, row, host if isinstance(host, Failure) else payload)  # type: ignore[arg-type]
            return
        end = time.monotonic() + BUSY_MOST_S
        while True:
            try:
                receipt = await self._talk().finish(
                    host, payload, transfer.name, transfer.number, transfer.id, self._facts.get(row.host, {})
                )
                break
            except ReceiverError as error:
                if error.busy and time.monotonic() < end:
                    await asyncio.sleep(BUSY_S)
                    continue
                await self._end_engine(work, row)
                await self._fail(transfer, work, row, error.failure)
                return
        work.of(row.host).failures = 0
        await self._save(transfer, row, states.Proved(str(receipt["verify"]["sha256"])), receipt)

    async def _end_engine(self, work: _Work, row: Placed) -> None:
        delivery = work.deliveries.get(row.delivery.transport)
        if delivery is not None:
            await delivery.cancel([row.host])

    async def _stop(self, transfer: Transfer, work: _Work, row: Placed, event: states.Event) -> None:
        await self._end_engine(work, row)
        work.of(row.host).ready_at = None
        if isinstance(event, states.Failed):
            await self._fail(transfer, work, row, event.failure)
        else:
            await self._save(transfer, row, event)

    async def _release(self, transfer: Transfer, work: _Work, row: Placed) -> None:
        from backend.distribution.receiving import ReceiverError

        for delivery in work.deliveries.values():
            await delivery.cancel([row.host])
        host = self._host(row.host)
        end = time.monotonic() + RELEASE_S
        while isinstance(host, Host):
            try:
                await self._talk().drop(host, [transfer.sha256], self._staged_elsewhere(transfer))
                break
            except ReceiverError as error:  # an engine that was just ended may have put a file there meanwhile
                if error.failure.reason is Reason.LINK_LOST or time.monotonic() > end:
                    log.info("%s: the stage of %s stays for a day: %s", row.host, transfer.id, error)
                    break
                await asyncio.sleep(BUSY_S)
        await self._save(transfer, row, states.Release())

    def _staged_elsewhere(self, transfer: Transfer) -> list[str]:
        others = [one.payload for name, one in self._works.items() if name != transfer.id and one.payload is not None]
        return [payload.sha256 for payload in others]


def vars_of(use: Any) -> dict[str, Any]:
    """What a delivery takes of the uplink, as it is stored."""
    return {"sent": use.sent, "rate": use.rate}


def _whole(there: Prepared, good: bytes, payload: Payload) -> bool:
    return there.have == payload.size and len(good) == len(payload.pieces) and all(good)


def _parts(transfers: Iterable[Transfer]) -> Iterable[Part]:
    for transfer in transfers:
        goes_on = not transfer.paused and not transfer.cancel
        for row in transfer.rows:
            yield Part(transfer.id, transfer.number, transfer.sha256, row.host, row.delivery.state, goes_on)


def _loads(transfers: list[Transfer]) -> dict[str, int]:
    """Per host, how many deliveries are under way."""
    found: dict[str, int] = {}
    for transfer in transfers:
        for row in transfer.rows:
            if row.delivery.state in WORKING:
                found[row.host] = found.get(row.host, 0) + 1
    return found


def live(transfer: Transfer) -> int:
    """How many hosts have the file in place, proved."""
    return sum(row.delivery.state in LIVE for row in transfer.rows)


def loads_here(transfer: Transfer) -> bool:
    """Whether this machine can read a file as what it says it is; one host alone does not condemn it for all."""
    request = {"kind": transfer.kind, "loadable": loadable.__file__}
    try:
        with open(transfer.path, "rb") as stream:
            answer = receiver.load(stream.fileno(), request, transfer.size)
    except (receiver.Refused, OSError):
        return False
    return bool(answer["result"] == "loads" and answer["method"] != "structure")
