"""What decides the outcome of a training run."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass

from backend.configs import Config
from backend.errors import UsageError


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that decides what a run produces, besides its data.

    Attributes:
        learning_rate: at its peak, after ``warmup`` of all steps; from there it falls along a cosine to a hundredth.
        warmup: fraction of all steps.
        clip: largest norm of a gradient.
    """

    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    warmup: float = 0.05
    clip: float = 2.0
    blocks: int = 3
    channels: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "blocks", "channels"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name.replace('_', '-')} has to be at least 1", where=str(getattr(self, name)))
        if not 0 < self.learning_rate < 1:
            raise UsageError("--lr has to lie between 0 and 1", where=str(self.learning_rate))

    def rate(self, done: int, total: int) -> float:
        """Learning rate at step ``done`` of ``total``: linear warm-up, then a cosine down to a hundredth."""
        warm = max(1, round(self.warmup * total))
        if done < warm:
            return self.learning_rate * (done + 1) / warm
        along = (done - warm) / max(1, total - warm)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * along)))

    def fingerprint(self, config: Config, data_digest: str, parent_sha256: str | None) -> str:
        """Identity of a run: the same settings, data and starting weights."""
        stated = {"settings": asdict(self), "data": data_digest, "config": config.key, "parent": parent_sha256}
        return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()
