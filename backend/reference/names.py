"""What the ai-service's names say: of participants, of files, of configs; pure.

A participant is a network by the name of its file, or ``<network or none>:<algorithm>:<settings>``, with ``:p<seat>``
behind it at times. The same network goes by several names (``canonical_X``, ``ringrift_best_X``, ``candidate_X``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from backend.configs import CONFIGS

KEYS = frozenset(config.key for config in CONFIGS)
HEURISTIC = "heuristic"
RANDOM = "random"
NOMINAL = {HEURISTIC: 1200.0, RANDOM: 400.0}
"""What the ai-service holds its two baselines at."""

_CONFIG = re.compile(r"(?<![a-z0-9])(square8|square19|hex8|hexagonal|sq8|sq19)_(\d)p(?![a-z0-9])", re.IGNORECASE)
_SHORT = {"sq8": "square8", "sq19": "square19"}
_SEAT = re.compile(r":p\d$")
_BASELINES = (
    (re.compile(r"^(baseline_heuristic\w*|heuristic\w*|none:heuristic(:.*)?|heuristic:.*)$"), HEURISTIC),
    (re.compile(r"^(baseline_random\w*|random\w*|tier1_random|none:random(:.*)?|random:.*|d1)$"), RANDOM),
)


@dataclass(frozen=True, slots=True)
class Participant:
    """A participant id taken apart.

    Attributes:
        id: as it is stored.
        network: name of the network; None for a player without one.
        search: ``algorithm:settings``; empty where the id does not say.
        baseline: ``heuristic`` or ``random`` when it is one of the two.
    """

    id: str
    network: str | None
    search: str = ""
    baseline: str | None = None


def participant(text: str) -> Participant:
    """Takes a participant id apart."""
    bare = _SEAT.sub("", text.strip())
    for pattern, name in _BASELINES:
        if pattern.match(bare.lower()):
            return Participant(text, None, "", name)
    head, _, search = bare.partition(":")
    if head.lower() == "none":
        return Participant(text, None, search)
    return Participant(text, head, search)


def config_of_name(text: str) -> str | None:
    """The config key in a name; None when there is none, or several different ones."""
    found = {f"{_SHORT.get(board.lower(), board.lower())}_{players}p" for board, players in _CONFIG.findall(text)}
    known = found & KEYS
    return known.pop() if len(known) == 1 and len(found) == 1 else None


def config_key(board: object, players: object) -> str | None:
    """The config of a board and a number of players, as columns or sidecars give them."""
    key = f"{_SHORT.get(str(board), str(board))}_{players}p"
    return key if key in KEYS else None


def moment(value: object) -> datetime | None:
    """A time as the ai-service writes it: seconds since 1970, or ISO text, which without a zone is local time."""
    try:
        if isinstance(value, (int, float)):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, str):
            try:
                return datetime.fromtimestamp(float(value), UTC)
            except ValueError:
                return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return None
