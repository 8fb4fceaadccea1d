"""Files on their way to hosts."""

from __future__ import annotations

from backend.snapshot import Snapshot
from ringrift_console.actions.action import Action, Param, Tier
from ringrift_console.actions.params import DRY_RUN, JSON, TRANSFER, WAIT
from ringrift_console.actions.subjects import find_transfer, needs_model

_TRANSFERS = "ringrift_console.verbs.transfers"


def _needs_transfer(snapshot: Snapshot, subject: str | None) -> str | None:
    return None if find_transfer(snapshot, subject) else "no transfer is selected"


def _can_pause(snapshot: Snapshot, subject: str | None) -> str | None:
    row = find_transfer(snapshot, subject)
    if row is None:
        return "no transfer is selected"
    if row.ended_at is not None:
        return "it has ended"
    return "it is paused already" if row.paused is not None else None


def _can_resume(snapshot: Snapshot, subject: str | None) -> str | None:
    row = find_transfer(snapshot, subject)
    if row is None:
        return "no transfer is selected"
    return None if row.paused is not None and row.ended_at is None else "it is not paused"


def _can_end_transfer(snapshot: Snapshot, subject: str | None) -> str | None:
    row = find_transfer(snapshot, subject)
    if row is None:
        return "no transfer is selected"
    return "it has ended" if row.ended_at is not None else None


def _can_retry_transfer(snapshot: Snapshot, subject: str | None) -> str | None:
    row = find_transfer(snapshot, subject)
    if row is None:
        return "no transfer is selected"
    again = any(host.state in ("failed", "cancelled", "blocked") for host in row.hosts)
    return None if again else "no host of it has failed"


def _can_verify(snapshot: Snapshot, subject: str | None) -> str | None:
    row = find_transfer(snapshot, subject)
    if row is None:
        return "no transfer is selected"
    return None if row.live else "no host has the file yet"


TRANSFERS: tuple[Action, ...] = (
    Action(
        "transfers.distribute",
        "Bring a model or a file to hosts, GPU hosts first, proved where it arrives",
        "distribute…",
        verb=("distribute",),
        params=(
            Param("what", "label or SHA-256 of a model, or a file", metavar="MODEL|FILE"),
            Param("--hosts", "names in hosts.yaml with commas; default all in use", metavar="NAMES"),
            Param("--transport", "use only this one", metavar="NAME"),
            Param("--limit", "Mbit/s of this machine's uplink that it may take", type="float", metavar="MBIT"),
            WAIT,
            DRY_RUN,
            JSON,
        ),
        run=f"{_TRANSFERS}:distribute",
        plan="backend.distribution.plans:plan_distribute",
        tier=Tier.PLAN,
        key="t",
        scope="models",
        available=needs_model,
    ),
    Action(
        "transfers.list",
        "Transfers under way, and the newest others",
        verb=("transfers", "list"),
        params=(Param("--last", "how many that have ended", type="int", default=30, metavar="N"), JSON),
        run=f"{_TRANSFERS}:list_transfers",
    ),
    Action(
        "transfers.show",
        "Everything known of one transfer: each host, its way, its troubles, its receipt",
        "details",
        verb=("transfers", "show"),
        params=(TRANSFER, JSON),
        run=f"{_TRANSFERS}:show",
        key="d",
        scope="transfers",
        available=_needs_transfer,
    ),
    Action(
        "transfers.pause",
        "End the engines of a transfer for a while; what hosts have stays",
        "pause…",
        verb=("transfers", "pause"),
        params=(TRANSFER, Param("--reason", "why, in words", metavar="TEXT"), WAIT, DRY_RUN, JSON),
        run=f"{_TRANSFERS}:pause",
        plan="backend.distribution.plans:plan_pause",
        tier=Tier.PLAN,
        key="p",
        scope="transfers",
        available=_can_pause,
    ),
    Action(
        "transfers.resume",
        "Let a paused transfer go on",
        "resume…",
        verb=("transfers", "resume"),
        params=(TRANSFER, WAIT, DRY_RUN, JSON),
        run=f"{_TRANSFERS}:resume",
        plan="backend.distribution.plans:plan_resume",
        tier=Tier.PLAN,
        key="u",
        scope="transfers",
        available=_can_resume,
    ),
    Action(
        "transfers.cancel",
        "End a transfer; hosts that have the file keep it",
        "cancel…",
        verb=("transfers", "cancel"),
        params=(TRANSFER, WAIT, DRY_RUN, JSON),
        run=f"{_TRANSFERS}:cancel",
        plan="backend.distribution.plans:plan_cancel",
        tier=Tier.PLAN,
        key="x",
        scope="transfers",
        available=_can_end_transfer,
    ),
    Action(
        "transfers.retry",
        "Try again where a transfer failed, with every transport",
        "retry…",
        verb=("transfers", "retry"),
        params=(TRANSFER, WAIT, DRY_RUN, JSON),
        run=f"{_TRANSFERS}:retry",
        plan="backend.distribution.plans:plan_retry",
        tier=Tier.PLAN,
        key="r",
        scope="transfers",
        available=_can_retry_transfer,
    ),
    Action(
        "transfers.limit",
        "Limit what a transfer, or all of them, may use of this machine's uplink and of hosts' links",
        "limit…",
        verb=("transfers", "limit"),
        params=(
            Param("transfer", "id of a transfer, or all for what they share", metavar="ID|all"),
            Param("--head", "Mbit/s of this machine's uplink; 0 is no limit", type="float", metavar="MBIT"),
            Param("--up", "Mbit/s that each host may give to others", type="float", metavar="MBIT"),
            Param("--down", "Mbit/s that each host may take", type="float", metavar="MBIT"),
            Param("--host", "--up and --down of this host alone", metavar="NAME"),
            WAIT,
            DRY_RUN,
            JSON,
        ),
        run=f"{_TRANSFERS}:limit",
        plan="backend.distribution.limits:plan_limit",
        tier=Tier.PLAN,
        key="l",
        scope="transfers",
    ),
    Action(
        "transfers.verify",
        "Have hosts read what a transfer brought them, from the first byte to the last",
        "verify…",
        verb=("transfers", "verify"),
        params=(TRANSFER, WAIT, DRY_RUN, JSON),
        run=f"{_TRANSFERS}:verify",
        plan="backend.distribution.plans:plan_verify",
        tier=Tier.PLAN,
        key="V",
        scope="transfers",
        available=_can_verify,
    ),
    Action(
        "fleet.drift",
        "Ask hosts what they hold, and tell what differs from their receipts",
        verb=("fleet", "drift"),
        params=(Param("--cached", "ask nobody, print what is stored", type="flag"), JSON),
        run=f"{_TRANSFERS}:drift",
    ),
)
