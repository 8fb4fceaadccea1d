"""The neural player: a trained network, and a search over it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from backend.configs import Config
from backend.errors import UsageError
from backend.players import SIMULATIONS, tree
from backend.players.once import compile_once
from backend.players.search import search
from backend.rules import load
from backend.rules.layout import PLAYER
from backend.training import packing, policy
from backend.training.checkpoint import LoadedModel, load_model
from backend.training.encoder import box_of
from backend.training.packing import GLOBALS, PACKED, PLANES, pack_states, unpack_batch
from backend.training.policy import COLUMNS, PLANE_TABLE, write_all_operands

BATCH = 16
"""Positions a network call on the CPU, always exactly so many (the rest is filled up): the same shapes give the same
roundings, so that a game does not depend on which others are played beside it. Larger ones are hardly faster there."""
GAMES = 64
"""Games searched together; bounds the memory of the trees."""


class NetworkEvaluator:
    """A network asked about positions of one config; see :class:`backend.players.search.Evaluator`."""

    def __init__(self, model: LoadedModel, device: str = "cpu") -> None:
        self.network = model.network.to(device)
        self.rules = load(model.config)
        self.box = box_of(model.config.board)
        self.device = torch.device(device)
        self.batch = BATCH if self.device.type == "cpu" else 256

    def __call__(
        self, states: NDArray[np.int64], moves: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Logits float32[M] of the moves and win probabilities float64[G, n] by seat."""
        logits = np.empty(len(moves), dtype=np.float32)
        values = np.empty((len(states), self.rules.players))
        ends = np.cumsum(counts)
        for start in range(0, len(states), self.batch):
            part = slice(start, min(start + self.batch, len(states)))
            span = slice(int(ends[start] - counts[start]), int(ends[part.stop - 1]))
            logits[span], values[part] = self._ask(states[part], moves[span], counts[part])
        return logits, values

    def _ask(
        self, states: NDArray[np.int64], moves: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        rules, box, size = self.rules, self.box, len(states)
        area = box.side * box.side
        filled = np.minimum(np.arange(self.batch, dtype=np.int64), size - 1)
        packed = np.empty((self.batch, PACKED, area), dtype=np.uint8)
        scalars = np.empty((self.batch, GLOBALS), dtype=np.float32)
        pack_states(states, filled, rules.tables, box.places, packed, scalars)
        planes = np.empty((self.batch, PLANES, area), dtype=np.float32)
        every = np.arange(self.batch, dtype=np.int64)
        unpack_batch(packed, every, np.zeros(self.batch, dtype=np.int64), box.sources, planes)
        operands = np.empty((len(moves), COLUMNS), dtype=np.int64)
        rows = np.empty(len(moves), dtype=np.int64)
        movers = states[:, PLAYER].copy()
        write_all_operands(
            moves, np.cumsum(counts) - counts, counts, movers, rules.players, box.places,
            np.tile(box.targets[0], (size, 1)), PLANE_TABLE, operands, rows,  # a view would be compiled for anew
        )  # fmt: skip
        with torch.inference_mode():
            output = self.network(
                torch.from_numpy(planes).view(self.batch, PLANES, box.side, box.side).to(self.device),
                torch.from_numpy(scalars).to(self.device),
                torch.from_numpy(operands).to(self.device),
                torch.from_numpy(rows).to(self.device),
            )
            relative = output.value[:size].double().exp().cpu().numpy()
        seats = (np.arange(rules.players)[None, :] + 1 - movers[:, None]) % rules.players
        return output.policy.cpu().numpy(), np.take_along_axis(relative, seats, axis=1)


class NeuralPlayer:
    """Plays the best move of a search over a network; with 0 simulations that of the network alone.

    Args:
        simulations: network evaluations a decision besides the first.
        noise: scale of the Gumbel noise at the root; 0 plays without chance, 1 explores as self-play wants it.
    """

    def __init__(
        self, model: LoadedModel, simulations: int | None = None, *, noise: float = 0.0, device: str = "cpu"
    ) -> None:
        self.simulations = SIMULATIONS if simulations is None else simulations
        if self.simulations < 0:
            raise UsageError("--simulations cannot be negative", where=str(self.simulations))
        self.noise = noise
        self.rules = load(model.config)
        self.evaluate = NetworkEvaluator(model, device)
        self.name = "neural"
        self.identity = f"neural:{model.sha256[:16]}:s{self.simulations}" + (f":g{noise:.2f}" if noise else "")

    def choose(self, states: NDArray[np.int64], rngs: Sequence[np.random.Generator]) -> NDArray[np.int64]:
        """One legal move a game; see :class:`backend.players.base.Player`."""
        return self.choose_with_policy(states, rngs)[0]

    def choose_with_policy(
        self, states: NDArray[np.int64], rngs: Sequence[np.random.Generator]
    ) -> tuple[NDArray[np.int64], list[NDArray[np.float32]]]:
        """The moves, and per game the search's improved policy over the legal list."""
        legal = [self.rules.legal(state) for state in states]
        moves = np.array([listed[0] for listed in legal], dtype=np.int64)
        policies = [np.ones(1, dtype=np.float32)] * len(legal)
        open_games = [game for game, listed in enumerate(legal) if len(listed) > 1]
        for start in range(0, len(open_games), GAMES):
            group = open_games[start : start + GAMES]
            found = search(
                self.rules,
                self.evaluate,
                np.ascontiguousarray(states[group]),
                [rngs[game] for game in group],
                simulations=self.simulations,
                noise=self.noise,
            )
            moves[group] = found.moves
            for game, improved in zip(group, found.policies, strict=True):
                policies[game] = improved
        return moves, policies


def load_player(path: str | Path, config: Config | None = None, *, simulations: int | None = None) -> NeuralPlayer:
    """The player of a checkpoint file; errors as :func:`backend.training.checkpoint.load_model`.

    Sets torch to one thread: several players on one machine run as several processes.
    """
    torch.set_num_threads(1)
    player = NeuralPlayer(load_model(Path(path), config=config), simulations)
    sources = tuple(Path(str(module.__file__)) for module in (tree, packing, policy))
    compile_once("search", sources, "compiling the search, once (about 15 seconds)...", lambda: _use_kernels(player))
    return player


def _use_kernels(player: NeuralPlayer) -> None:
    states = player.rules.new()[None]
    search(player.rules, player.evaluate, states, [np.random.default_rng(0)], simulations=1)
