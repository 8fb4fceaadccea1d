"""Parameters that several actions have."""

from __future__ import annotations

from ringrift_console.actions.action import Param

CONFIG = (
    Param("--config", "config key, e.g. hex8_2p", metavar="KEY"),
    Param("--board-type", "board: square8 square19 hex8 hexagonal", aliases=("--board",), metavar="BOARD"),
    Param("--num-players", "2, 3 or 4", type="int", metavar="N"),
)
JSON = Param("--json", "print JSON", type="flag")
DRY_RUN = Param("--dry-run", "print the plan and change nothing", type="flag")
WAIT = Param("--wait", "stay until it has ended and exit with its outcome", type="flag")
HOST = Param("host", "name in hosts.yaml", metavar="HOST")
TRANSFER = Param("transfer", "id of a transfer", metavar="ID")
HOSTS_FILE = Param("--hosts", "hosts file to use; default RINGRIFT_HOSTS, else the root's", type="path", metavar="FILE")
ALARM = Param("alarm", "number of an alarm", metavar="ALARM")
MODEL = Param("model", "label, SHA-256 or the start of one", metavar="MODEL")
REASON = Param("--reason", "why, in words; kept for ever", metavar="TEXT")
SEED = Param("--seed", "seed of all random choices", type="int", metavar="N")
