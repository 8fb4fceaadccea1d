"""The policy and value network: one fully convolutional architecture for all boards and player counts.

A residual trunk without normalisation layers (each block starts as the identity), with masks so that cells off the
board never leak in, and with global pooling in every block, as KataGo's (Wu 2019, arXiv 1902.10565, section 3).
Nothing depends on the size of the board.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from backend.errors import SchemaError
from backend.training.packing import GLOBALS, PLANES, PRESENT, SEAT_GLOBALS
from backend.training.policy import POLICY_PLANES, SLOTS

ARCHITECTURE = "ringrift-conv-1"
OWNERS = 5
"""Classes of the ownership head: nobody, then seats 0..3 counted from the player to act."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """The sizes of a network.

    Attributes:
        blocks: residual blocks of two 3 x 3 convolutions.
        channels: channels of the trunk.
        pair: length of the vectors whose products score a move's cells together.
    """

    blocks: int = 3
    channels: int = 32
    pair: int = 16

    def __post_init__(self) -> None:
        for name, value, most in (
            ("blocks", self.blocks, 64),
            ("channels", self.channels, 1024),
            ("pair", self.pair, 256),
        ):
            if not 1 <= value <= most:
                raise SchemaError(f"a network cannot have {value} {name}", hint=f"1 to {most}")

    @property
    def label(self) -> str:
        return f"{ARCHITECTURE}-b{self.blocks}c{self.channels}"


@dataclass(frozen=True, slots=True)
class Output:
    """What a network says of B positions with M moves in all.

    Attributes:
        policy: float32[M], a logit per move, to be compared within a position only.
        value: float32[B, 4], log-probability that a seat wins, counted from the player to act; -inf for absent seats.
        ownership: float32[B, OWNERS, H, W], logits of who owns each cell in the end.
        scores: float32[B, 4, 2], share of the ring goal and of the territory goal that a seat reaches in the end.
    """

    policy: Tensor
    value: Tensor
    ownership: Tensor
    scores: Tensor


def pool(x: Tensor, mask: Tensor, count: Tensor) -> Tensor:
    """Mean over the board, the same scaled by its size, and maximum: ``(B, C, H, W)`` to ``(B, 3 C)``."""
    mean = x.sum(dim=(2, 3)) / count
    largest = (x + (mask - 1.0) * 1e4).amax(dim=(2, 3))
    return torch.cat((mean, mean * ((count.sqrt() - 14.0) / 10.0), largest), dim=1)


class Block(nn.Module):
    """A residual block: convolution, pooled bias, convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.pooled = nn.Linear(3 * channels, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.pooled.weight)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor, mask: Tensor, count: Tensor) -> Tensor:
        y = self.first(functional.relu(x)) * mask
        y = y + self.pooled(pool(y, mask, count))[:, :, None, None]
        residual: Tensor = self.second(functional.relu(y) * mask) * mask
        return x + residual


class Network(nn.Module):
    """The network of an :class:`Architecture`."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        channels, pair = architecture.channels, architecture.pair
        self.stem = nn.Conv2d(PLANES, channels, 3, padding=1)
        self.stem_globals = nn.Linear(GLOBALS, channels)
        self.blocks = nn.ModuleList(Block(channels) for _ in range(architecture.blocks))
        self.policy_planes = nn.Conv2d(channels, POLICY_PLANES, 1)
        self.policy_vectors = nn.Conv2d(channels, 3 * pair, 1)
        self.policy_destination = nn.Parameter(torch.ones(SLOTS, pair) / pair**0.5)
        self.policy_target = nn.Parameter(torch.ones(SLOTS, pair) / pair**0.5)
        self.policy_pooled = nn.Linear(3 * channels, SLOTS)
        self.value_hidden = nn.Linear(3 * channels + GLOBALS, 2 * channels)
        self.value = nn.Linear(2 * channels, 4)
        self.scores = nn.Linear(2 * channels, 8)
        self.ownership = nn.Conv2d(channels, OWNERS, 1)
        for head in (self.policy_planes, self.policy_pooled, self.value, self.scores):
            nn.init.normal_(head.weight, std=0.01)

    def forward(self, planes: Tensor, scalars: Tensor, moves: Tensor, rows: Tensor) -> Output:
        """Evaluates B positions.

        Args:
            planes: float32 ``(B, PLANES, H, W)``.
            scalars: float32 ``(B, GLOBALS)``.
            moves: int64 ``(M, COLUMNS)``, operands of :mod:`backend.training.policy`.
            rows: int64 ``(M,)``, the position that each move belongs to.
        """
        mask = planes[:, :1]
        count = mask.sum(dim=(1, 2, 3)).unsqueeze(1)
        x = (self.stem(planes) + self.stem_globals(scalars)[:, :, None, None]) * mask
        for block in self.blocks:
            x = block(x, mask, count)
        x = functional.relu(x) * mask
        pooled = pool(x, mask, count)
        hidden = functional.relu(self.value_hidden(torch.cat((pooled, scalars), dim=1)))
        absent = scalars[:, PRESENT::SEAT_GLOBALS] < 0.5
        return Output(
            policy=self._policy(x, pooled, moves, rows),
            value=self.value(hidden).float().masked_fill(absent, float("-inf")).log_softmax(dim=1),
            ownership=self.ownership(x).float(),
            scores=self.scores(hidden).float().view(-1, 4, 2),
        )

    def _policy(self, x: Tensor, pooled: Tensor, moves: Tensor, rows: Tensor) -> Tensor:
        size, pair = len(x), self.architecture.pair
        slot = moves[:, 0]
        planes = functional.pad(self.policy_planes(x).flatten(1), (0, 1))
        entries = moves[:, 1:4] + (rows * planes.shape[1])[:, None]
        logits = planes.view(-1)[entries].sum(dim=1)
        logits = logits + self.policy_pooled(pooled)[rows, slot]
        vectors = functional.pad(self.policy_vectors(x).flatten(2).transpose(1, 2), (0, 0, 0, 1))
        places = vectors.shape[1]
        flat = vectors.reshape(size * places, 3, pair)
        base = rows * places
        first = flat[base + moves[:, 4], 0]
        other = flat[base + moves[:, 5], 1] * self.policy_destination[slot]
        other = other + flat[base + moves[:, 6], 2] * self.policy_target[slot]
        scored: Tensor = logits + (first * other).sum(dim=1)
        return scored.float()


def segment_log_softmax(logits: Tensor, rows: Tensor, count: int) -> Tensor:
    """Log-probabilities within each of ``count`` positions; ``rows`` says to which one a move belongs."""
    most = torch.full((count,), float("-inf"), device=logits.device).scatter_reduce(0, rows, logits.detach(), "amax")
    shifted = logits - most[rows]
    total = torch.zeros(count, device=logits.device).index_add(0, rows, shifted.exp())
    return shifted - total.log()[rows]
