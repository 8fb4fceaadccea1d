"""Who waits because another transfer brings the same bytes to the same host. Pure.

Two would share a folder there and end each other's engine; when the first is through the file is there, and nothing is
sent for the second.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from backend.distribution.states import WORKING, State


@dataclass(frozen=True, slots=True)
class Part:
    """One delivery of a transfer.

    Attributes:
        number: transfers are numbered in the order in which they were asked for.
        goes_on: the transfer is neither paused nor cancelled.
    """

    transfer: str
    number: int
    sha256: str
    host: str
    state: State
    goes_on: bool


def second_in_line(parts: Iterable[Part]) -> dict[tuple[str, str], str]:
    """By (transfer, host) of each delivery that waits, the transfer that it waits for."""
    first: dict[tuple[str, str], str] = {}
    ordered = sorted(parts, key=lambda one: one.number)
    for working in (True, False):
        for one in ordered:
            if one.state in WORKING if working else one.state is State.QUEUED and one.goes_on:
                first.setdefault((one.sha256, one.host), one.transfer)
    return {
        (one.transfer, one.host): ahead for one in ordered
        if one.state is State.QUEUED and (ahead := first.get((one.sha256, one.host), one.transfer)) != one.transfer
    }  # fmt: skip
