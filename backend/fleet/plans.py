"""Plans about hosts, and how the supervisor carries them out. Each ``apply_`` may be called again after a crash."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from backend.errors import RefusedError, RingRiftError
from backend.fleet.bootstrap import BUNDLES, TOLD, bootstrap
from backend.fleet.bundle import make_bundle, pins
from backend.fleet.checkout import AI_SERVICE, COMMANDS, IMPORTS, check_checkout, path_of
from backend.fleet.doctor import findings, packages_for
from backend.fleet.errors import SshError
from backend.fleet.hosts import Host, load_hosts
from backend.fleet.known_hosts import HostKey, enrol_key
from backend.fleet.look import look_at_all, state_after, way_to
from backend.fleet.probe import folder_of
from backend.fleet.store import (
    KNOWN_HOSTS,
    address,
    code_in_use,
    drained_hosts,
    find_host,
    host_rows,
    record_code,
    record_enrolment,
    record_refused_checkout,
    record_report,
    record_trouble,
    set_drained,
)
from backend.paths import Paths
from backend.plans import Change, Plan
from backend.snapshot import HostRow, HostState
from backend.state.store import StateStore

PLAN_ROWS = 12

log = logging.getLogger("ringrift.supervisor")


async def host_of(paths: Paths, name: str) -> Host:
    """The host of a name as the hosts file has it now.

    Raises:
        NotFoundError: the hosts file has none.
        SettingsError: the hosts file cannot be understood.
    """
    return find_host(await asyncio.to_thread(load_hosts, paths.hosts_yaml), name)


async def guard_host(paths: Paths, store: StateStore, name: str) -> str:
    """Whether a host gets new jobs: ``open`` or ``drained``."""
    return "drained" if name in await drained_hosts(store) else "open"


async def _look(paths: Paths, name: str) -> tuple[int, str]:
    """Revision and whether the host gets new jobs; makes no database."""
    if not paths.state_db.exists():
        return 0, "open"
    async with await StateStore.open(paths) as store:
        return await store.revision(), await guard_host(paths, store, name)


async def plan_drain(paths: Paths, *, host: str, reason: str | None = None) -> Plan:
    """What draining a host will do.

    Raises:
        NotFoundError: there is no such host.
        RefusedError: it is drained already.
    """
    await host_of(paths, host)
    revision, now = await _look(paths, host)
    if now == "drained":
        raise RefusedError("it is drained already", where=host, hint=f"ringrift hosts undrain {host}")
    return Plan(
        action="hosts.drain",
        title=f"Drain {host}",
        params={"host": host, "reason": reason or ""},
        changes=(Change(f"new jobs on {host}", "placed", "none"),),
        steps=("place no new jobs there", "jobs that run there go on to their end"),
        command=f"ringrift hosts drain {host}",
        undo=f"ringrift hosts undrain {host}",
        revision=revision,
        guard={f"host {host}": now},
    )


async def plan_undrain(paths: Paths, *, host: str) -> Plan:
    """What undraining a host will do.

    Raises:
        NotFoundError: there is no such host.
        RefusedError: it is not drained.
    """
    await host_of(paths, host)
    revision, now = await _look(paths, host)
    if now == "open":
        raise RefusedError("it is not drained", where=host)
    return Plan(
        action="hosts.undrain",
        title=f"Undrain {host}",
        params={"host": host},
        changes=(Change(f"new jobs on {host}", "none", "placed"),),
        steps=("place new jobs there again",),
        command=f"ringrift hosts undrain {host}",
        undo=f"ringrift hosts drain {host}",
        revision=revision,
        guard={f"host {host}": now},
    )


async def plan_probe(paths: Paths, *, host: str | Sequence[str] = ()) -> Plan:
    """What probing hosts (all of them when none is named) will do: nothing there, only facts here.

    Raises:
        NotFoundError: there is no such host.
    """
    names = [host] if isinstance(host, str) else list(host)
    hosts = await asyncio.to_thread(load_hosts, paths.hosts_yaml)
    found = [find_host(hosts, name) for name in names] or list(hosts.hosts)
    revision, _ = await _look(paths, found[0].name)
    who = "all hosts" if not names else " ".join(names)
    return Plan(
        action="hosts.probe",
        title=f"Probe {who}",
        params={"hosts": [each.name for each in found]},
        changes=tuple(Change(f"facts of {each.name}", "as stored", "as it answers") for each in found[:PLAN_ROWS]),
        steps=("ask for versions, sizes, tools and GPUs; nothing is changed there",),
        command=f"ringrift hosts probe {' '.join(names)}".rstrip(),
        undo="Nothing to undo.",
        revision=revision,
    )


async def apply_drain(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    """Drains a host; returns ``{"host", "drained"}``."""
    name = str(plan.params["host"])
    operation = await store.operation(store.operation_id) if store.operation_id else None
    by = operation.by if operation else ""
    await set_drained(store, name, True, by=by, reason=str(plan.params.get("reason") or ""))
    return {"host": name, "drained": True}


async def apply_undrain(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    """Undrains a host; returns ``{"host", "drained"}``."""
    name = str(plan.params["host"])
    await set_drained(store, name, False)
    return {"host": name, "drained": False}


async def apply_probe(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    """Asks hosts for their facts and stores them; returns ``{"up", "trouble": {host: why}}``.

    Raises:
        RingRiftError: the only host that was asked for could not be asked.
    """
    hosts = await asyncio.to_thread(load_hosts, paths.hosts_yaml)
    asked = [find_host(hosts, str(name)) for name in plan.params["hosts"]]
    async with way_to(paths, asked) as remote:
        answers = await look_at_all(store, remote, asked)
    trouble = {name: answer for name, answer in answers.items() if isinstance(answer, RingRiftError)}
    if len(asked) == 1:
        for error in trouble.values():
            raise error
    return {
        "up": [name for name in answers if name not in trouble],
        "trouble": {name: error.line() for name, error in trouble.items()},
    }


async def plan_enrol(paths: Paths, *, host: str) -> Plan:
    """The key that a host shows now, to be compared by a person before it is trusted.

    Raises:
        NotFoundError: there is no such host.
        RefusedError: it needs no key, or that key is enrolled already.
        SshError: the host shows none.
    """
    found = await host_of(paths, host)
    if found.is_here:
        raise RefusedError("this machine needs no key", where=host)
    from backend.fleet.ssh import SshPool

    async with SshPool(paths) as pool:
        offered = await pool.enrol(found)
    before = offered.enrolled.fingerprint if offered.enrolled else "not enrolled"
    if offered.enrolled == offered.key:
        raise RefusedError("this key is enrolled already", where=f"{host} {before}")
    kind = offered.key.algorithm.removeprefix("ssh-").split("-")[0]
    warnings = [f"compare it with what the host itself says: ssh-keygen -lf /etc/ssh/ssh_host_{kind}_key.pub"]
    if offered.enrolled is not None:
        warnings.insert(0, "the host shows ANOTHER key than before: reinstalled, or somebody stands between")
    revision, _ = await _look(paths, host)
    return Plan(
        action="hosts.enrol",
        title=f"Enrol the key of {host}",
        params={"host": host, "key": offered.key.text, "fingerprint": offered.fingerprint},
        changes=(Change(f"trusted key of {host}", before, offered.fingerprint),),
        steps=(f"trust this key of {address(found)} from now on", "ask the host for its facts"),
        command=f"ringrift hosts enrol {host} --fingerprint {offered.fingerprint}",
        undo=f"remove the line of {host} from {paths.console / KNOWN_HOSTS}",
        warnings=tuple(warnings),
        revision=revision,
    )


async def apply_enrol(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    """Trusts the key that was shown, and no other; returns ``{"host", "fingerprint", "trouble"}``."""
    name = str(plan.params["host"])
    host = await host_of(paths, name)
    key = HostKey.parse(str(plan.params["key"]))
    await asyncio.to_thread(enrol_key, paths.console / KNOWN_HOSTS, name, key)
    operation = await store.operation(store.operation_id) if store.operation_id else None
    if await store.step("recorded") is None:
        await record_enrolment(store, name, key.fingerprint, operation.by if operation else "")
        await store.record_step("recorded")
    async with way_to(paths, [host]) as remote:
        answers = await look_at_all(store, remote, [host])
    answer = answers[name]
    trouble = answer.line() if isinstance(answer, RingRiftError) else ""
    return {"host": name, "fingerprint": key.fingerprint, "trouble": trouble}


async def plan_bootstrap(paths: Paths, *, host: str) -> Plan:
    """What setting a host up will do.

    Raises:
        NotFoundError: there is no such host.
        RefusedError: it is this machine, it runs another program, its key is not enrolled, or its last facts say that
            our code cannot run there.
    """
    found = await host_of(paths, host)
    if found.is_here:
        raise RefusedError("this machine runs this installation already", where=host)
    if found.runtime not in ("builtin", AI_SERVICE):
        raise RefusedError(f"nobody here knows its runtime {found.runtime}", where=host, hint="builtin or ai-service")
    rows: tuple[HostRow, ...] = ()
    revision = 0
    if paths.state_db.exists():
        async with await StateStore.open(paths) as store:
            rows, revision = await host_rows(store), await store.revision()
    row = next((row for row in rows if row.name == host), None)
    if row is None or row.fingerprint is None:
        raise RefusedError("its key is not enrolled", where=host, hint=f"ringrift hosts enrol {host}")
    if found.runtime == AI_SERVICE:
        return _plan_check(found, row, revision)
    if row.facts_at is not None:
        for finding in findings(row.facts, row.samples[-1] if row.samples else None):
            if finding.level == "error":
                raise RefusedError(finding.text, where=host, hint=finding.mend)
    bundle = await asyncio.to_thread(make_bundle, paths.console / BUNDLES)
    now = str(row.facts.get("bundle") or "")
    given = found.settings.get("python_path") or found.settings.get("venv_activate")
    packages = f"use the packages of {given}" if given else "make an environment there with pip: " + " ".join(pins())
    kind = packages_for(row.facts, row.samples[-1] if row.samples else None)
    warnings = ["it is set up with this code already: only what is missing is done"] if now == bundle.sha256 else []
    if kind == "cpu":
        packages += f"; torch from {found.settings['torch_cpu_index']}"
    elif kind == "pypi" and row.samples and not row.samples[-1].gpus and not row.facts.get("gpu_problem"):
        warnings.append("it has no NVIDIA GPU: torch_cpu_index in hosts.yaml saves 3.6 GB of CUDA there")
    return Plan(
        action="hosts.bootstrap",
        title=f"Bootstrap {host}",
        params={"host": host},
        changes=(Change(f"code on {host}", now[:12] or "none", bundle.sha256[:12]),),
        steps=(
            "check Python, machine, glibc, disk and file system; refuse before anything is changed",
            packages,
            f"send the code as {bundle.sha256[:12]}, {bundle.path.stat().st_size / 1000:.0f} kB, and unpack it",
            "let it play a few games, which compiles the rules there (about a minute)",
            "remove code and environments of earlier versions that nobody uses any more",
        ),
        command=f"ringrift hosts bootstrap {host}",
        undo=f"remove the folder bundles/{bundle.sha256[:12]}... from {folder_of(found)} there",
        warnings=tuple(warnings),
        revision=revision,
    )


def _plan_check(host: Host, row: HostRow, revision: int) -> Plan:
    """What checking the checkout of a host will do."""
    path = path_of(host)
    before = row.facts.get("checkout_revision") or "yes" if "commands" in row.facts else "no"
    return Plan(
        action="hosts.bootstrap",
        title=f"Check the checkout of {host.name}",
        params={"host": host.name},
        changes=(Change(f"{path} checked", str(before), "as it is now"),),
        steps=(
            "look whether the programs are there",
            f"let its Python import {' '.join(IMPORTS)}",
            f"ask the programs of {' '.join(COMMANDS)} for their --help and look for the flags that jobs use",
            "nothing is changed or installed there",
        ),
        command=f"ringrift hosts bootstrap {host.name}",
        undo="Nothing to undo.",
        revision=revision,
    )


async def apply_bootstrap(paths: Paths, plan: Plan, store: StateStore) -> dict[str, Any]:
    """Sets a host up and records what is there; returns ``{"host", "python", "bundle", "root", "versions"}``."""
    host = await host_of(paths, str(plan.params["host"]))

    told = 0
    removed: dict[str, Any] = {}

    async def tell(line: str) -> None:
        nonlocal told
        told += 1
        log.info("bootstrap of %s: %s", host.name, line)
        await store.tell_progress(told, TOLD, line)

    async with way_to(paths, [host]) as remote:
        assert remote is not None, "this machine is not bootstrapped"
        try:
            if host.runtime == AI_SERVICE:
                made, report = await check_checkout(remote, host, tell=tell)
            else:
                keep, owner = await code_in_use(store, host.name), await store.owner()
                setup, report = await bootstrap(remote, host, paths, owner=owner, keep=keep, tell=tell)
                made, removed = setup.to_json(), {"removed": list(setup.removed)}
        except RingRiftError as error:
            await record_trouble(store, host.name, state_after_step(error), f"bootstrap: {error.line()}")
            if host.runtime == AI_SERVICE and isinstance(error, RefusedError):
                await record_refused_checkout(store, host.name, error.what, error.hint)
            raise
    await record_report(store, host.name, report)
    await record_code(store, host.name, made)
    return {"host": host.name} | made | removed


def state_after_step(error: RingRiftError) -> HostState:
    """The state of a host on which a bootstrap failed: it answered, unless the way to it was at fault."""
    return state_after(error) if isinstance(error, SshError) else "up"
