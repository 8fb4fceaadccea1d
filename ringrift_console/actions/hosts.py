"""Hosts: how they are, whether they are trusted, set up and used."""

from __future__ import annotations

from backend.snapshot import Snapshot
from ringrift_console.actions.action import Action, Param, Tier
from ringrift_console.actions.params import DRY_RUN, HOST, HOSTS_FILE, JSON, WAIT
from ringrift_console.actions.subjects import find_host

_HOSTS = "ringrift_console.verbs.hosts"


def _needs_host(snapshot: Snapshot, subject: str | None) -> str | None:
    return None if find_host(snapshot, subject) else "no host is selected"


def _can_enrol(snapshot: Snapshot, subject: str | None) -> str | None:
    host = find_host(snapshot, subject)
    if host is None:
        return "no host is selected"
    return "this machine needs no key" if host.local else None


def _can_bootstrap(snapshot: Snapshot, subject: str | None) -> str | None:
    host = find_host(snapshot, subject)
    if host is None:
        return "no host is selected"
    if host.local:
        return "this machine runs this installation"
    return None if host.fingerprint else "its key is not enrolled"


def _can_drain(snapshot: Snapshot, subject: str | None) -> str | None:
    host = find_host(snapshot, subject)
    if host is None:
        return "no host is selected"
    return "it is drained already" if host.drained is not None else None


def _can_undrain(snapshot: Snapshot, subject: str | None) -> str | None:
    host = find_host(snapshot, subject)
    if host is None:
        return "no host is selected"
    return "it is not drained" if host.drained is None else None


def _can_reload(snapshot: Snapshot, subject: str | None) -> str | None:
    return None if any(host.changed for host in snapshot.hosts) else "the hosts file has not changed"


HOSTS: tuple[Action, ...] = (
    Action(
        "hosts.list",
        "Hosts and how they are; asks those that were not asked within a minute",
        verb=("hosts", "list"),
        params=(Param("--cached", "ask nobody, print what is stored", type="flag"), HOSTS_FILE, JSON),
        run=f"{_HOSTS}:list_hosts",
    ),
    Action(
        "hosts.show",
        "Everything known of one host",
        "details",
        verb=("hosts", "show"),
        params=(HOST, HOSTS_FILE, JSON),
        run=f"{_HOSTS}:show",
        key="d",
        scope="hosts",
        available=_needs_host,
    ),
    Action(
        "hosts.probe",
        "Ask hosts for their facts, and say what is missing there",
        "probe…",
        verb=("hosts", "probe"),
        params=(Param("host", "names in hosts.yaml; none means all", repeat="*", metavar="HOST"), HOSTS_FILE, JSON),
        run=f"{_HOSTS}:probe",
        plan="backend.fleet.plans:plan_probe",
        key="p",
        scope="hosts",
        tier=Tier.PLAN,
        available=_needs_host,
    ),
    Action(
        "hosts.enrol",
        "Trust the key that a host shows, after comparing its fingerprint",
        "enrol…",
        verb=("hosts", "enrol"),
        params=(
            HOST,
            Param("--fingerprint", "the fingerprint that was compared, SHA256:...", metavar="FP"),
            HOSTS_FILE,
            WAIT,
            DRY_RUN,
            JSON,
        ),
        run=f"{_HOSTS}:enrol",
        plan="backend.fleet.plans:plan_enrol",
        key="e",
        scope="hosts",
        tier=Tier.PLAN,
        available=_can_enrol,
    ),
    Action(
        "hosts.bootstrap",
        "Set a host up: its environment, and this code by its hash",
        "bootstrap…",
        verb=("hosts", "bootstrap"),
        params=(HOST, HOSTS_FILE, WAIT, DRY_RUN, JSON),
        run=f"{_HOSTS}:bootstrap",
        plan="backend.fleet.plans:plan_bootstrap",
        key="b",
        scope="hosts",
        tier=Tier.PLAN,
        available=_can_bootstrap,
    ),
    Action(
        "hosts.drain",
        "Place no new jobs on a host; those that run there go on",
        "drain…",
        verb=("hosts", "drain"),
        params=(
            HOST,
            Param("--reason", "why, in words", metavar="TEXT"),
            HOSTS_FILE,
            WAIT,
            DRY_RUN,
            JSON,
        ),
        run=f"{_HOSTS}:drain",
        plan="backend.fleet.plans:plan_drain",
        key="D",
        scope="hosts",
        tier=Tier.PLAN,
        available=_can_drain,
    ),
    Action(
        "hosts.undrain",
        "Place new jobs on a drained host again",
        "undrain…",
        verb=("hosts", "undrain"),
        params=(HOST, HOSTS_FILE, WAIT, DRY_RUN, JSON),
        run=f"{_HOSTS}:undrain",
        plan="backend.fleet.plans:plan_undrain",
        key="U",
        scope="hosts",
        tier=Tier.PLAN,
        available=_can_undrain,
    ),
    Action(
        "hosts.reload",
        "Let the supervisor go by the hosts file as it is now; the plan shows what changes",
        "reload…",
        verb=("hosts", "reload"),
        params=(HOSTS_FILE, WAIT, DRY_RUN, JSON),
        run=f"{_HOSTS}:reload",
        plan="backend.fleet.reload:plan_reload",
        key="R",
        scope="hosts",
        tier=Tier.PLAN,
        available=_can_reload,
    ),
    Action(
        "hosts.shell",
        "A shell on a host, with ssh and the enrolled key",
        "shell",
        verb=("hosts", "shell"),
        params=(HOST, HOSTS_FILE),
        run=f"{_HOSTS}:shell",
        key="s",
        scope="hosts",
        available=_needs_host,
    ),
)
