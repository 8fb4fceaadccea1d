"""Hosts: where jobs run, how these machines are, and what is missing there."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence

from textual.app import SuspendNotSupported

from backend.errors import RingRiftError
from backend.fleet.doctor import findings
from backend.fleet.hosts import load_hosts
from backend.fleet.pool_look import pool_text
from backend.fleet.shell import shell_argv
from backend.fleet.store import find_host as host_in_file
from backend.snapshot import BUSY, HostRow, HostSample, Snapshot
from backend.text import size_text
from ringrift_console.actions import find_host
from ringrift_console.widgets.line import Span
from ringrift_console.widgets.table import Column
from screens.base import BaseScreen
from screens.cells import UNKNOWN, progress_text, state_span
from screens.detail import DetailScreen
from screens.facts import Fact
from screens.listing import ListScreen

SPARK = 30


class HostActions(BaseScreen):
    """What the table and the page of one host have in common."""

    def do_hosts_shell(self) -> None:
        """Leaves the terminal to ssh and comes back when it ends."""
        if self.subject is None:
            return
        paths = self.app.paths
        try:
            argv = shell_argv(host_in_file(load_hosts(paths.hosts_yaml), self.subject), paths)
            with self.app.suspend():
                code = subprocess.run(argv, check=False).returncode
        except SuspendNotSupported:
            self.say("this terminal cannot be lent to a shell", "warn")
        except FileNotFoundError:
            self.say(f"there is no {argv[0]} on this machine: install openssh-client", "notice_bad")
        except RingRiftError as error:
            self.say(error.line(), "notice_bad")
        else:
            self.app.redraw()
            self.say(f"back from {self.subject}" + (f", exit code {code}" if code else ""))


class HostsScreen(HostActions, ListScreen[HostRow]):
    """The table of hosts."""

    KIND = "hosts"
    TITLE = "Hosts"
    NOUN = "host"
    EMPTY = "hosts.yaml cannot be read"

    def items(self, snapshot: Snapshot) -> Sequence[HostRow]:
        return snapshot.hosts

    def called(self, item: HostRow) -> str:
        return item.name

    def facts(self, item: HostRow) -> list[Fact]:
        return host_facts(self, item)

    def columns(self) -> list[Column[HostRow]]:
        look = self.app.look
        return [
            Column(
                "HOST", self._host, 10, flex=2,
                find=lambda host: f"{host.name} {' '.join(host.groups)}", sort=lambda host: host.name,
            ),
            Column("STATE", lambda host: state_span(look, state_word(host)), 9, find=state_word, sort=state_word),
            Column("ROLE", lambda host: _role(host) or UNKNOWN, 8, flex=1, find=_role, sort=_role),
            Column("GPUS", _gpus, 6, align="right", sort=lambda host: len(_nodes(host).gpus)),
            Column("MEM", _percent(_memory), 4, align="right", sort=_memory),
            Column("DISK FREE", _disk, 9, align="right", sort=lambda host: _newest(host).disk_free),
            Column("LOAD", _load, 5, align="right", sort=lambda host: _nodes(host).load),
            Column("JOBS", lambda host: f"{host.jobs}/{host.slots}", 7, align="right", sort=lambda host: host.jobs),
            Column("AGE", self._age, 4, align="right", sort=lambda host: host.seen_at),
        ]  # fmt: skip

    def _host(self, host: HostRow) -> Span:
        """The host, marked when the hosts file has changed about it."""
        return (f"{host.name}{self.app.look.glyphs.attention}", "warn") if host.changed else (host.name, "text")

    def _age(self, host: HostRow) -> Span:
        return self.app.clock.age(host.seen_at), "dim"

    async def do_open(self) -> None:
        self.do_hosts_show()

    def do_hosts_show(self) -> None:
        if self.subject is not None:
            self.app.push_screen(HostDetail(self.subject))


class HostDetail(HostActions, DetailScreen):
    """One host."""

    KIND = "host"

    @property
    def crumb(self) -> str:
        return f"Hosts › {self.key}"

    def facts(self, snapshot: Snapshot) -> list[Fact] | None:
        host = find_host(snapshot, self.key)
        return host_facts(self, host) if host else None

    def do_hosts_show(self) -> None:
        self.dismiss()


def state_word(host: HostRow) -> str:
    """The state to show: a host that answers but gets no jobs is drained first of all."""
    return "drained" if host.drained is not None and host.state == "up" else host.state


_NOTHING = HostSample(at=None)  # type: ignore[arg-type]  # every value unknown


def _newest(host: HostRow) -> HostSample:
    return host.samples[-1] if host.samples else _NOTHING


def _is_pool(host: HostRow) -> bool:
    return "pool" in host.facts


def _nodes(host: HostRow) -> HostSample:
    """What runs jobs there; of a pool nothing is sampled but its login host, which runs none."""
    return _NOTHING if _is_pool(host) else _newest(host)


def _role(host: HostRow) -> str:
    return host.role or ("slurm pool" if _is_pool(host) else "")


def _memory(host: HostRow) -> float | None:
    return memory_share(_nodes(host))


def memory_share(sample: HostSample) -> float | None:
    """Share of memory in use, 0 to 1."""
    if not sample.memory_total or sample.memory_used is None:
        return None
    return sample.memory_used / sample.memory_total


def disk_share(sample: HostSample) -> float | None:
    """Share of the disk in use, 0 to 1."""
    if not sample.disk_total or sample.disk_free is None:
        return None
    return 1 - sample.disk_free / sample.disk_total


def gpu_share(sample: HostSample) -> float | None:
    """How busy the GPUs are on average, 0 to 1."""
    known = [gpu.busy for gpu in sample.gpus if gpu.busy is not None]
    return sum(known) / len(known) / 100 if known else None


def _role_of(host: HostRow, share: float | None = None) -> str:
    """Values of a host that does not answer are of another time; what is nearly used up stands out."""
    if host.state != "up":
        return "dim"
    return "warn" if share is not None and share >= 0.9 else "text"


def _percent(value: Callable[[HostRow], float | None]) -> Callable[[HostRow], Span]:
    def cell(host: HostRow) -> Span:
        share = value(host)
        return (UNKNOWN, "dim") if share is None else (f"{100 * share:.0f}%", _role_of(host, share))

    return cell


def _disk(host: HostRow) -> Span:
    free, share = _newest(host).disk_free, disk_share(_newest(host))
    if free is None:
        return UNKNOWN, "dim"
    return size_text(free).replace(".0 ", " "), _role_of(host, share)


def _load(host: HostRow) -> Span:
    load = _nodes(host).load
    return (UNKNOWN, "dim") if load is None else (f"{load:.1f}", _role_of(host))


def _gpus(host: HostRow) -> Span:
    gpus = _nodes(host).gpus
    if not gpus:
        return UNKNOWN, "dim"
    busy = gpu_share(_nodes(host))
    return f"{len(gpus)}" + ("" if busy is None else f" {100 * busy:.0f}%"), _role_of(host)


def host_facts(screen: BaseScreen, host: HostRow) -> list[Fact]:
    """Everything known of one host: how it is, its course, what is missing there, what went wrong."""
    app, clock, sample = screen.app, screen.app.clock, _newest(host)
    word, role = state_span(app.look, state_word(host))
    reload = app.keymap.hint("hosts.reload")
    title = f"Bootstrap {host.name}"
    setting_up = [row for row in app.snapshot.operations if row.title == title and row.progress]
    facts: list[Fact] = [
        ("state", (word, role)),
        *[("set-up", (row.progress, "accent")) for row in setting_up],
        *([("why", (host.why, "warn"))] if host.why else []),
        *([("drained", (host.drained, "warn"))] if host.drained is not None else []),
        *[("changed", (f"{change}; not used before a reload ({reload})", "warn")) for change in host.changed],
        ("address", host.address or "this machine"),
        ("role", _role(host) or UNKNOWN),
        *([("groups", " ".join(host.groups))] if host.groups else []),
        ("jobs", f"{host.jobs} of {host.slots}"),
        ("key", "not needed" if host.local else host.fingerprint or ("not enrolled", "warn")),
        ("code", _code(host)),
        ("latency", UNKNOWN if host.latency_ms is None else f"{host.latency_ms:.0f} ms for a whole answer"),
        ("seen", clock.long(host.seen_at)),
    ]
    facts += _jobs(screen, host)
    if _is_pool(host):
        facts += [("Pool", None), *pool_text(host.facts["pool"])]
    if host.samples:
        of = "Login host, and the disk of the shared root" if _is_pool(host) else "Resources"
        now = of if host.state == "up" else f"{of} as last told, {clock.ago(sample.at)}"
        facts += [(now, None), *_resources(screen, host, sample)]
    if host.facts_at is not None:
        facts += [("Set-up", None)]
        for found in findings(host.facts, sample if host.samples else None):
            facts.append((found.level, (found.text, {"error": "bad", "warning": "warn"}.get(found.level, "text"))))
            facts += [("", (f"→ {found.mend}", "accent"))] if found.mend else []
        facts.append(("read", clock.long(host.facts_at)))
    if host.troubles:
        facts += [("Last errors", None)]
        facts += [(clock.short(trouble.at), (trouble.text, "text")) for trouble in host.troubles]
    return facts


def _jobs(screen: BaseScreen, host: HostRow) -> list[Fact]:
    """What was placed there and has not ended, as far as that is known."""
    look = screen.app.look
    there = [job for job in screen.app.snapshot.jobs if job.host == host.name and job.state in (*BUSY, "unknown")]
    facts: list[Fact] = [("Jobs there", None)] if there else []
    for job in there:
        word, role = state_span(look, job.state)
        silent = f", not heard since {screen.app.clock.short(job.silent_since)}" if job.silent_since else ""
        facts.append((job.id, (f"{word}  {job.kind} {job.config}  {progress_text(look, job, 8)}{silent}", role)))
    return facts


def _code(host: HostRow) -> str | Span:
    if host.facts.get("bundle"):
        return str(host.facts["bundle"])[:16]
    return "this installation" if host.local else ("not set up", "warn")


def _resources(screen: BaseScreen, host: HostRow, now: HostSample) -> list[Fact]:
    """The newest values, each with its course over the last samples."""
    spark = screen.app.look.glyphs.spark
    cpus = host.facts.get("cpus")
    loads = [sample.load for sample in host.samples]
    top = max([float(cpus or 1), *(load for load in loads if load is not None)])
    facts: list[Fact] = []
    if now.load is not None:
        facts.append(("load", f"{spark(loads, SPARK, top)} {now.load:.2f}" + (f" of {cpus} CPUs" if cpus else "")))
    if now.memory_total:
        used = "unknown" if now.memory_used is None else size_text(now.memory_used)
        course = spark([memory_share(sample) for sample in host.samples], SPARK, 1.0)
        facts.append(("memory", f"{course} {used} of {size_text(now.memory_total)}"))
    if now.disk_free is not None:
        course = spark([disk_share(sample) for sample in host.samples], SPARK, 1.0)
        facts.append(("disk", f"{course} {size_text(now.disk_free)} free"))
    if now.gpus:
        course = spark([gpu_share(sample) for sample in host.samples], SPARK, 1.0)
        facts.append(("GPUs", f"{course} busy"))
    for gpu in now.gpus:
        parts = [gpu.name, *([f"{gpu.busy:.0f}%"] if gpu.busy is not None else [])]
        if gpu.memory_used is not None and gpu.memory_total:
            parts.append(f"{size_text(gpu.memory_used)} of {size_text(gpu.memory_total)}")
        parts += [f"{gpu.celsius:.0f} °C"] if gpu.celsius is not None else []
        facts.append((f"GPU {gpu.index}", "  ".join(parts)))
    return facts
