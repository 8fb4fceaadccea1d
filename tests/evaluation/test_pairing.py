"""Pairings: near opponents, a share for the anchors, and ratings that become sure with fewer games than by chance."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from backend.evaluation.pairing import ANCHOR_SHARE, games_for, next_pairings
from backend.evaluation.rating_spec import ANCHOR, RatingSpec
from backend.evaluation.ratings import SCALE, Ratings, rate

ANCHORS = [ANCHOR, "ladder:a", "ladder:b"]
MODELS = [f"model{i}" for i in range(8)]
NAMES = [*ANCHORS, *MODELS]
ELO = np.array([1500.0, 1650, 1900, *np.linspace(1450, 1950, 8)])


def played_games(pairs: list[tuple[str, str]], seed: int, each: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes of pairings by the true ratings, both seats."""
    rng = np.random.default_rng(seed)
    rows = [(NAMES.index(a), NAMES.index(b))[:: 1 if i % 2 else -1] for a, b in pairs for i in range(each)]
    seats = np.array(rows).reshape(-1, 2)
    scores = ELO[seats] / SCALE + rng.gumbel(size=seats.shape)
    return seats, 1 + (scores < scores.max(1, keepdims=True))


def rated(pairs: list[tuple[str, str]], seed: int = 1) -> Ratings:
    seats, ranks = played_games(pairs, seed)
    return rate(NAMES, seats, ranks, RatingSpec())


def tally(pairs: list[tuple[str, str]], each: int = 2) -> dict[frozenset[str], int]:
    counts = Counter(frozenset(pair) for pair in pairs)
    return {pair: each * number for pair, number in counts.items()}


START = [(model, anchor) for model in MODELS for anchor in ANCHORS for _ in range(4)]


def test_the_same_input_gives_the_same_pairings() -> None:
    found = rated(START)
    one, two = (next_pairings(found, MODELS, ANCHORS, tally(START), 20, np.random.default_rng(3)) for _ in range(2))
    assert one == two and len(one) == 20
    assert all(pair.reference in MODELS and pair.reference != pair.opponent for pair in one)
    assert {pair.reason for pair in one} == {"upper bound", "standard error", "fewest games"}


def test_near_opponents_are_drawn_more_often_than_far_ones() -> None:
    made = next_pairings(rated(START), MODELS, ANCHORS, tally(START), 600, np.random.default_rng(1))
    gaps = [abs(ELO[NAMES.index(pair.reference)] - ELO[NAMES.index(pair.opponent)]) for pair in made]
    apart = [abs(a - b) for a in ELO[3:] for b in ELO if a != b]
    assert np.mean(gaps) < 0.8 * np.mean(apart)


def test_every_model_meets_the_anchors_for_its_share() -> None:
    """600 pairings in 20 rounds from nothing: whoever fell short of the share plays an anchor next."""
    pairs: list[tuple[str, str]] = []
    rng = np.random.default_rng(2)
    for number in range(20):
        found = rated(pairs, number) if pairs else rated(START[:1])
        pairs += [(p.reference, p.opponent) for p in next_pairings(found, MODELS, ANCHORS, tally(pairs), 30, rng)]
    for model in MODELS:
        own = [pair for pair in pairs if pair[0] == model]
        assert own and sum(pair[1] in ANCHORS for pair in own) > 0
        every = [pair for pair in pairs if model in pair]
        anchored = sum(bool(set(pair) & set(ANCHORS)) for pair in every)
        assert anchored >= 0.8 * ANCHOR_SHARE * len(every)  # being drawn as an opponent is not up to the model


def test_unknown_models_are_measured_first_against_anchors() -> None:
    known = [(model, anchor) for model in MODELS[1:] for anchor in ANCHORS for _ in range(20)]
    found = rated(known)
    assert found.index(MODELS[0]) is None
    made = next_pairings(found, MODELS, ANCHORS, tally(known), 12, np.random.default_rng(0))
    first = next(pair for pair in made if pair.reason != "upper bound")
    assert first.reference == MODELS[0] and first.opponent in ANCHORS
    assert sum(pair.reference == MODELS[0] for pair in made) >= 6


def test_chosen_pairings_make_ratings_surer_than_as_many_against_heuristic_alone() -> None:
    """The same number of games: the ladder and near models tell more of strong models than the weak anchor does."""
    pairs, rng = list(START), np.random.default_rng(4)
    for number in range(12):
        made = next_pairings(rated(pairs, number), MODELS, ANCHORS, tally(pairs), 20, rng)
        pairs += [(pair.reference, pair.opponent) for pair in made]
    plain = START + [(MODELS[i % 8], ANCHOR) for i in range(240)]
    assert len(plain) == len(pairs)
    chosen, alone = rated(pairs), rated(plain)
    worst = [max(one.se[one.index(model)] for model in MODELS) for one in (chosen, alone)]
    assert worst[0] < 0.9 * worst[1]


def test_nobody_to_play_is_an_error_and_the_games_for_a_standard_error_are_right() -> None:
    with pytest.raises(ValueError, match="somebody else"):
        next_pairings(rated(START), ["model0"], [], {}, 1, np.random.default_rng(0))
    assert games_for(20.0, 0.25) == 302
