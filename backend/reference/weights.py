"""What a checkpoint of an ai-service says of its config, by its own tensors first; nothing in it is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backend.reference.names import KEYS, config_key

_BOARD_OF_POLICY = {7_000: "square8", 67_000: "square19", 4_500: "hex8", 91_876: "hexagonal"}
"""Size of the policy by board, as the ai-service has it."""
_VALUE_HEADS = ("value_fc2.weight", "value_head.fc2.weight")


def config_in(path: Path) -> str | None:
    """The config that the weights were made for; None when they do not say.

    The number of values that the value head gives beats what is written beside it: labels of the ai-service are wrong
    at times, and some of its networks write no number of players.

    Raises:
        UntrustedError: it carries code; nothing of it was run.
        UnverifiedError: it is truncated, corrupted or no checkpoint.
        SchemaError: it holds no dictionary.
    """
    from backend.training.checkpoint import METADATA, read_container

    content = read_container(path)
    metadata = content.get(METADATA)
    metadata = metadata if isinstance(metadata, dict) else {}
    stated = metadata.get("config")
    if isinstance(stated, str):
        return stated if stated in KEYS else None
    noted: dict[str, Any] = {**content, **metadata, **(stated if isinstance(stated, dict) else {})}
    weights = content.get("model_state_dict")
    players = _players(weights if isinstance(weights, dict) else content) or noted.get("num_players")
    board = noted.get("board_type") or _BOARD_OF_POLICY.get(_number(noted.get("policy_size")))
    return config_key(board, players)


def _players(weights: dict[str, Any]) -> int | None:
    for name in _VALUE_HEADS:
        shape = getattr(weights.get(name), "shape", None)
        if shape:
            return int(shape[0])
    return None


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
