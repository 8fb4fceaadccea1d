"""Batches for training: samples drawn in a seeded order, each seen through a random exact symmetry of its board."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.rules.jit import kernel
from backend.training.dataset import Dataset
from backend.training.encoder import box_of
from backend.training.packing import PLANES, unpack_batch
from backend.training.policy import COLUMNS, PLANE_TABLE, write_all_operands

IGNORED = -100
"""Ownership class of cells off the board."""


@dataclass(frozen=True, slots=True)
class Batch:
    """B samples with M moves in all, as tensors.

    Attributes:
        planes, scalars, moves, rows: the arguments of :class:`~backend.training.network.Network`.
        policy: float32[M], target probabilities.
        chosen: bool[B], samples that have a policy target.
        winner: int64[B], seat that won, counted from the player to act.
        ownership: int64[B, H, W], class of each cell in the end, ``IGNORED`` off the board.
        scores: float32[B, 4, 2], shares of the goals reached; ``present`` bool[B, 4] says which seats exist.
    """

    planes: Tensor
    scalars: Tensor
    moves: Tensor
    rows: Tensor
    policy: Tensor
    chosen: Tensor
    winner: Tensor
    ownership: Tensor
    scores: Tensor
    present: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(*(getattr(self, name).to(device, non_blocking=True) for name in self.__dataclass_fields__))


@kernel
def write_targets(
    chosen: NDArray[np.int64],
    picks: NDArray[np.int64],
    sources: NDArray[np.int32],
    players: NDArray[np.uint8],
    winners: NDArray[np.uint8],
    exchanged: NDArray[np.uint8],
    games: NDArray[np.int32],
    cells: NDArray[np.uint8],
    scores: NDArray[np.float32],
    count: int,
    winner_out: NDArray[np.int64],
    ownership_out: NDArray[np.int64],
    scores_out: NDArray[np.float32],
    present_out: NDArray[np.bool_],
) -> None:
    """Value, ownership and score targets of rows ``chosen``, turned to the player to act and to the symmetry.

    ``cells`` is uint8[G, area]; the outputs are those of :class:`Batch`, ownership as int64[B, area].
    """
    for i in range(len(chosen)):
        row = chosen[i]
        mover = np.int64(players[row])
        winner_out[i] = (np.int64(winners[row]) - mover + count) % count
        game = games[row]
        for at in range(sources.shape[1]):
            owner = np.int64(cells[game, sources[picks[i], at]])
            if owner == 255:
                ownership_out[i, at] = -100
            elif owner == 0:
                ownership_out[i, at] = 0
            else:
                if exchanged[row] and owner <= 2:
                    owner = 3 - owner
                ownership_out[i, at] = 1 + (owner - mover + count) % count
        for player in range(1, count + 1):
            held = 3 - player if exchanged[row] and player <= 2 else player
            seat = (player - mover + count) % count
            present_out[i, seat] = True
            scores_out[i, seat] = scores[game, held - 1]


@kernel
def take_ragged(
    values: NDArray[np.float32], starts: NDArray[np.int64], counts: NDArray[np.int64], out: NDArray[np.float32]
) -> None:
    """Copies the slices ``values[starts[i] : starts[i] + counts[i]]`` one after the other."""
    at = 0
    for i in range(len(starts)):
        for j in range(counts[i]):
            out[at] = values[starts[i] + j]
            at += 1


class Batches:
    """Makes batches of a dataset."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.box = box_of(dataset.config.board)
        self.symmetries = len(self.box.sources)

    def make(self, chosen: NDArray[np.int64], picks: NDArray[np.int64]) -> Batch:
        """The samples ``chosen``, sample i through symmetry ``picks[i]``."""
        arrays, box = self.dataset.arrays, self.box
        chosen, picks = np.ascontiguousarray(chosen), np.ascontiguousarray(picks)  # else kernels are compiled anew
        size, area, players = len(chosen), box.side * box.side, self.dataset.config.players
        offsets = arrays["policy_offsets"]
        starts = offsets[chosen]
        counts = offsets[chosen + 1] - starts
        total = int(counts.sum())
        planes = np.empty((size, PLANES, area), dtype=np.float32)
        unpack_batch(_flat(arrays["features"]), chosen, picks, box.sources, planes)
        moves = np.empty((total, COLUMNS), dtype=np.int64)
        rows = np.empty(total, dtype=np.int64)
        movers = arrays["players"][chosen].astype(np.int64)
        write_all_operands(
            arrays["policy_indices"], starts, counts, movers, players, box.places, box.targets[picks], PLANE_TABLE,
            moves, rows,
        )  # fmt: skip
        policy = np.empty(total, dtype=np.float32)
        take_ragged(arrays["policy_values"], starts, counts, policy)
        winner = np.empty(size, dtype=np.int64)
        ownership = np.empty((size, area), dtype=np.int64)
        scores = np.zeros((size, 4, 2), dtype=np.float32)
        present = np.zeros((size, 4), dtype=np.bool_)
        write_targets(
            chosen, picks, box.sources, arrays["players"], arrays["winners"], arrays["exchanged"],
            arrays["game_index"], _flat(arrays["final_cells"]), arrays["final_scores"], players,
            winner, ownership, scores, present,
        )  # fmt: skip
        return Batch(
            planes=torch.from_numpy(planes).view(size, PLANES, box.side, box.side),
            scalars=torch.from_numpy(arrays["globals"][chosen]),
            moves=torch.from_numpy(moves),
            rows=torch.from_numpy(rows),
            policy=torch.from_numpy(policy),
            chosen=torch.from_numpy(counts > 0),
            winner=torch.from_numpy(winner),
            ownership=torch.from_numpy(ownership).view(size, box.side, box.side),
            scores=torch.from_numpy(scores),
            present=torch.from_numpy(present),
        )

    def epoch(
        self, rows: NDArray[np.int64], size: int, seed: int, epoch: int, first: int = 0, *, rank: int = 0, of: int = 1
    ) -> Iterator[Batch]:
        """Training batches of one epoch from step ``first`` on; a function of ``seed`` and ``epoch`` alone.

        Of ``of`` shares of each batch only that of ``rank`` is made; it may be empty.
        """
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch])))
        order = rows[rng.permutation(len(rows))]
        picks = rng.integers(0, self.symmetries, len(rows))
        for step in range(first, steps_of(len(rows), size)):
            part = slice(step * size + rank, min((step + 1) * size, len(rows)), of)
            yield self.make(order[part], picks[part])

    def plain(self, rows: NDArray[np.int64], size: int) -> Iterator[Batch]:
        """Batches in order, as recorded, for measuring."""
        for start in range(0, len(rows), size):
            chosen = rows[start : start + size]
            yield self.make(chosen, np.zeros(len(chosen), dtype=np.int64))


def steps_of(samples: int, size: int) -> int:
    """Batches in an epoch; the last one may be smaller."""
    return -(-samples // size)


def _flat(array: NDArray[Any]) -> NDArray[Any]:
    """The last two dimensions (the box) as one."""
    return array.reshape(*array.shape[:-2], array.shape[-2] * array.shape[-1])
