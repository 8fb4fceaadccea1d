"""What a transfer may use of the links, from what was set for it, for all of them, and for hosts. Pure.

Research 8.5: a host that trains gives and takes at most 30 % of its link; a training set takes less of a shared uplink
than a model. The other numbers of that section (80 % of this machine's uplink, 70 % of a host's link) are not set by
themselves: links are only known where ``bandwidth_mbps`` stands in the hosts file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backend.distribution.transports.base import Budget

MBIT = 125_000.0
"""Bytes a second in a Mbit/s."""
TRAINING_SHARE = 0.3
"""Part of its link that a host may use for transfers while it trains."""
WEIGHTS = {"npz": 1}
WEIGHT = 3
"""Shares of the uplink for all transfers: of a training set, and of any other file."""


@dataclass(frozen=True, slots=True)
class Going:
    """What is under way.

    Attributes:
        weights: of each transfer that is under way, by id.
        busy: per host, how many of them it takes part in.
        training: hosts that train now.
        links: bytes a second of hosts' links, where they are known.
    """

    weights: Mapping[str, int] = field(default_factory=dict)
    busy: Mapping[str, int] = field(default_factory=dict)
    training: Collection[str] = frozenset()
    links: Mapping[str, float] = field(default_factory=dict)


def least(*limits: float | None) -> float | None:
    """The strictest of some limits; None where there is none."""
    known = [limit for limit in limits if limit]
    return min(known) if known else None


def in_force(name: str, own: Budget, all_: Budget, going: Going, hosts: Sequence[str]) -> Budget:
    """The budget of one transfer now.

    Args:
        name: of the transfer.
        own: what was set for it.
        all_: what was set for all transfers together: an uplink that they share, and the links of hosts.
        hosts: those that are to have the file.

    Returns:
        One with an entry for every host that has any limit.
    """
    whole = sum(going.weights.values())
    part = going.weights.get(name, whole) / whole if whole else 1.0
    found: dict[str, tuple[float | None, float | None]] = {}
    for host in hosts:
        count = max(1, going.busy.get(host, 1))
        trains = TRAINING_SHARE * going.links[host] if host in going.training and host in going.links else None
        up, down = least(all_.up(host), trains), least(all_.down(host), trains)
        limits = (
            least(own.up(host), up / count if up else None), least(own.down(host), down / count if down else None),
        )  # fmt: skip
        if limits != (None, None):
            found[host] = limits
    return Budget(least(own.head_up, all_.head_up * part if all_.head_up else None), hosts=found)


def to_json(budget: Budget) -> dict[str, Any]:
    """As it is stored; what has no limit is left out."""
    values = {"head_up": budget.head_up, "host_up": budget.host_up, "host_down": budget.host_down}
    found: dict[str, Any] = {name: value for name, value in values.items() if value}
    hosts = {name: list(limits) for name, limits in budget.hosts.items()}
    return found | ({"hosts": hosts} if hosts else {})


def from_json(value: Mapping[str, Any]) -> Budget:
    """What :func:`to_json` made."""
    hosts = {str(name): (limits[0], limits[1]) for name, limits in value.get("hosts", {}).items()}
    return Budget(value.get("head_up"), value.get("host_up"), value.get("host_down"), hosts)


def words(limit: float | None) -> str:
    """A limit for people."""
    return f"{limit / MBIT:g} Mbit/s" if limit else "no limit"
