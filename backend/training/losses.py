"""What training minimises, and what is measured on held-out games."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from backend.training.batches import IGNORED, Batch
from backend.training.network import Network, Output, segment_log_softmax

OWNERSHIP_WEIGHT = 0.5
SCORES_WEIGHT = 0.5


@dataclass(frozen=True, slots=True)
class Measures:
    """Averages over held-out samples; accuracies are fractions, None where there was nothing to measure."""

    policy_loss: float | None
    policy_accuracy: float | None
    value_loss: float | None
    value_accuracy: float | None
    samples: int


def policy_loss(output: Output, batch: Batch) -> Tensor:
    """Cross entropy of the target probabilities, averaged over the samples that have one; nats."""
    logs = segment_log_softmax(output.policy, batch.rows, len(batch.chosen))
    return -(batch.policy * logs).sum() / batch.chosen.sum().clamp(min=1)


def value_loss(output: Output, batch: Batch) -> Tensor:
    """Negative log-probability of the winner; nats."""
    return functional.nll_loss(output.value, batch.winner)


def counts_of(batch: Batch) -> Tensor:
    """What the four parts of the loss are averaged over: policy targets, samples, cells, seats; float32[4]."""
    cells = (batch.ownership != IGNORED).sum()
    size = torch.tensor(len(batch.chosen), device=cells.device)
    return torch.stack((batch.chosen.sum(), size, cells, batch.present.sum())).float()


def total_loss(output: Output, batch: Batch, counts: Tensor) -> Tensor:
    """Policy and value, with ownership and scores as auxiliary targets (KataGo's largest single gain, arXiv
    1902.10565, table 2).

    Args:
        counts: :func:`counts_of` the whole batch, so that the losses of its shares add up to that of the batch.
    """
    samples, cells, seats = counts[1:].unbind()
    logs = segment_log_softmax(output.policy, batch.rows, len(batch.chosen))
    policy = -(batch.policy * logs).sum() / counts[0].clamp(min=1)
    value = functional.nll_loss(output.value, batch.winner, reduction="sum") / samples
    owners = functional.cross_entropy(output.ownership, batch.ownership, ignore_index=IGNORED, reduction="sum") / cells
    miss = (output.scores - batch.scores).square().mean(dim=2)
    scores = (miss * batch.present).sum() / seats
    return policy + value + OWNERSHIP_WEIGHT * owners + SCORES_WEIGHT * scores


def best_moves(scores: Tensor, rows: Tensor, count: int) -> Tensor:
    """Index of the first highest score of each position, -1 for positions without moves; int64[count]."""
    most = torch.full((count,), float("-inf"), device=scores.device).scatter_reduce(0, rows, scores, "amax")
    places = torch.arange(len(scores), device=scores.device)
    hits = torch.where(scores == most[rows], places, len(scores))
    first = torch.full((count,), len(scores), device=scores.device).scatter_reduce(0, rows, hits, "amin")
    return torch.where(first == len(scores), -1, first)


def measure(network: Network, batches: Iterable[Batch], device: torch.device) -> Measures:
    """Losses and accuracies of a network: how often its best move is a most probable one of the target, and how
    often the seat it gives the best chance won."""
    sums = torch.zeros(4, dtype=torch.float64)
    chosen = samples = 0
    network.eval()
    with torch.inference_mode():
        for batch in batches:
            batch = batch.to(device)
            output = network(batch.planes, batch.scalars, batch.moves, batch.rows)
            size, with_policy = len(batch.chosen), int(batch.chosen.sum())
            picked = best_moves(output.policy, batch.rows, size)[batch.chosen]
            wanted = best_moves(batch.policy, batch.rows, size)[batch.chosen]
            sums += torch.tensor(
                [
                    float(policy_loss(output, batch)) * with_policy,
                    float((batch.policy[picked] == batch.policy[wanted]).sum()),
                    float(value_loss(output, batch)) * size,
                    float((output.value.argmax(dim=1) == batch.winner).sum()),
                ],
                dtype=torch.float64,
            )
            chosen += with_policy
            samples += size
    network.train()
    policy = [float(value) / chosen if chosen else None for value in sums[:2]]
    value = [float(value) / samples if samples else None for value in sums[2:]]
    return Measures(policy[0], policy[1], value[0], value[1], samples)
