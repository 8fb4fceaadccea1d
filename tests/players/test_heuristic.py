"""Heuristic: its features on positions worked out by hand, its invariances, its strength."""

from __future__ import annotations

import numpy as np
import pytest

from backend.configs import CONFIGS, Config, parse_config
from backend.players import make_player
from backend.players.features import FEATURES, WEIGHTS
from backend.players.heuristic import HeuristicPlayer
from backend.players.heuristic_kernels import TIE, WON, pick_best, soften
from backend.players.live import LiveGame, move_cap
from backend.rules import load
from backend.rules.layout import LPS_COUNT, LPS_ONLY, PLAYER

SQUARE = parse_config("square8_2p")
HEX = parse_config("hex8_2p")


def heuristic(config: Config) -> HeuristicPlayer:
    player = make_player("heuristic", config)
    assert isinstance(player, HeuristicPlayer)
    return player


def features(config: Config, text: str, **told: object) -> dict[str, float]:
    """The features of a position, as the player to act sees it."""
    rules = load(config)
    return heuristic(config).features(rules.parse_text(text, **told))


def random_positions(config: Config, count: int, seed: int) -> list[np.ndarray]:
    """Running positions with a choice to make, from random play."""
    rules, rng, found = load(config), np.random.default_rng(seed), []
    while len(found) < count:
        game = LiveGame(rules, move_cap(config))
        game.play_at_random(rng.random(int(rng.integers(0, 60))), turns=10_000)
        if not game.settle():
            found.append(game.state.copy())
    return found


def test_material_counts_stacks_heights_caps_and_diversity_against_the_mean_of_the_others() -> None:
    # Player 1: heights 1 and 7 (5 + 0.2), caps 1 and 2. Player 2: one stack of height 2, cap 2.
    found = features(SQUARE, "move|1|active|0|6,16|3,1|0,0|0,0:1 5,5:2222211 7,0:22||")
    assert found["stacks"] == 1
    assert found["height"] == pytest.approx(1 + 5.2 - 2)
    assert found["caps"] == (1 + 2) - 2
    assert found["diversity"] == 2 * 2 - -10
    assert found["hand"] == 6 - 16
    assert found["eliminated"] == 3


def test_the_centre_of_each_board_is_where_the_reference_has_it() -> None:
    sizes = {}
    for board in ("square8", "square19", "hex8", "hexagonal"):
        rules = load(Config(board, 2))
        centre = heuristic(rules.config)._places[:-1, 12].astype(bool)
        sizes[board] = int(centre.sum())
        for cells in rules.symmetries:
            assert (centre[cells] == centre).all()
    assert sizes == {"square8": 4, "square19": 9, "hex8": 19, "hexagonal": 19}


def test_threats_and_sight_compare_caps() -> None:
    # 3,3 (cap 1) has the enemy 3,4 (cap 3) beside it; 0,3 (cap 2) sees 3,3 only past nothing enemy, and 0,0 (cap 1).
    found = features(SQUARE, "move|1|active|0|10,10|0,0|0,0|3,3:1 3,4:222 0,3:11 0,0:2||")
    assert found["threats"] == pytest.approx(-0.5 * (3 - 1))
    # 3,3 sees 3,4 (2 larger) and, on its diagonal, 0,0 (equal); 0,3 sees 0,0 (1 smaller); 3,4 hides nothing more.
    assert found["exposed"] == -2
    assert found["overtakes"] == 1


def test_sight_goes_over_markers_and_collapsed_cells_to_the_first_stack() -> None:
    found = features(SQUARE, "move|1|active|0|12,13|0,0|1,0|0,0:1111 0,5:22 0,7:2|0,2:2|0,3:1")
    assert found["overtakes"] == 4 - 2
    assert found["exposed"] == 0


def test_mobility_counts_steps_and_overtakes_and_freedom_only_cells_without_stack() -> None:
    # 0,0 has three neighbours: one collapsed, one enemy with a smaller cap, one empty. 7,7 is shut in entirely.
    text = "move|1|active|0|10,10|0,0|4,0|0,0:11 0,1:2 7,7:1|1,1:2|1,0:1 7,6:1 6,7:1 6,6:1"
    found = features(SQUARE, text)
    # Player 2's 0,1 has five neighbours: 0,0 has the larger cap, 1,0 is collapsed, three are open (one a marker).
    assert found["mobility"] == 2 - 3
    assert found["freedom"] == (1 - 5) - 3


def test_runs_of_markers_make_lines_and_links_in_both_directions() -> None:
    found = features(SQUARE, "move|1|active|0|17,17|0,0|0,0|7,7:1 7,0:2|0,0:1 0,1:1 0,2:1 2,4:2 4,4:2|")
    # Three in a row: two pairs and one triple, each seen from both ends; player 2: a gap of one open cell.
    assert found["lines"] == 2 * (2 * 1 + 1 * 2)
    assert found["links"] == 2 * 2 - 2 * 0.5
    assert found["markers"] == 3 - 2
    assert found["closure"] == pytest.approx((10 / ((1 + 1 + 2) / 3) + 1.5) - (10 / 2 + 1.0))


def test_four_in_a_row_count_five_more_and_a_gap_closed_by_a_stack_counts_nothing() -> None:
    found = features(SQUARE, "move|1|active|0|17,17|0,0|0,0|3,1:1 7,0:2|0,0:1 0,1:1 0,2:1 0,3:1 3,0:2 3,2:2|")
    assert found["lines"] == 2 * (3 * 1 + 2 * 2 + 1 * 5)
    assert found["links"] == 2 * 3 - 0


def test_closure_needs_two_markers() -> None:
    assert features(SQUARE, "move|1|active|0|17,17|0,0|0,0|7,7:1 7,0:2|0,0:1|")["closure"] == 0


def test_safety_looks_two_steps_far_on_square_boards_and_one_on_hexagonal_ones() -> None:
    # Markers of player 1: beside an enemy stack (-2), diagonal to one (-1), far from all.
    found = features(SQUARE, "move|1|active|0|17,16|0,0|0,0|7,7:1 2,2:2 5,0:2|2,3:1 6,1:1 0,7:1|")
    assert found["safety"] == -2 - 1
    # On hexagonal boards distances are twice as long: a neighbour is 2 away.
    found = features(HEX, "move|1|active|0|17,17|0,0|0,0|3,0:1 -3,0:2|-3,1:1 -3,2:1|")
    assert found["safety"] == -1


def test_proximity_grows_towards_both_goals_and_behind_only_counts_when_behind() -> None:
    found = features(SQUARE, "move|1|active|0|5,5|8,13|3,0|7,7:11111 0,0:11||3,3:1 3,4:1 3,5:1", ring_supply=18)
    own, other = 50 / 10 + 50 / 30, 50 / 5 + 50 / 33
    assert found["proximity"] == pytest.approx(own - other)
    assert found["behind"] == pytest.approx(own - other)
    ahead = features(SQUARE, "move|2|active|0|5,5|8,13|3,0|7,7:11111 0,0:11||3,3:1 3,4:1 3,5:1", ring_supply=18)
    assert ahead["proximity"] == pytest.approx(other - own)
    assert ahead["behind"] == 0


def test_a_streak_of_sole_mobility_is_almost_a_win() -> None:
    rules = load(SQUARE)
    state = rules.parse_text("move|1|active|0|17,17|0,0|0,0|7,7:1 7,0:2||")
    base = 50 / 18 + 50 / 33
    for rounds, value in ((1, 945.0), (2, 990.0), (3, 1000.0)):
        state[LPS_ONLY], state[LPS_COUNT] = 1, rounds
        assert heuristic(SQUARE).features(state)["proximity"] == pytest.approx(value - base)


def test_stuck_players_are_at_risk_and_buried_rings_are_worth_something() -> None:
    # Player 1: two stacks, none can act, nothing in hand: risk 2. Player 2: one stack that can act, rings in hand: 0.
    walls = "1,0:2 0,1:2 1,1:2 7,6:2 6,7:2 6,6:2"
    found = features(SQUARE, f"move|2|active|0|0,15|0,0|0,6|0,0:21 7,7:1 3,3:12||{walls}")
    assert found["stuck"] == pytest.approx(-(0 - 2))
    # Both have one ring under another: 0.9 each.
    assert found["recovery"] == 0
    # Player 1 holds no stack, has a marker and a buried ring: eligible, and the marker can slide.
    found = features(SQUARE, "place|1|active|0|0,15|0,0|0,0|3,3:12|6,6:1|")
    assert found["recovery"] == 8 + 6


def test_with_three_players_the_leader_and_idle_opponents_count() -> None:
    config = parse_config("square8_3p")
    text = "move|1|active|0|10,0,0|2,12,6|0,0,0|5,5:1 0,0:2||{}"
    walls = "0,1:1 1,0:1 1,1:1"
    found = features(config, text.format(walls), ring_supply=18)
    near = [50 / (24 - credits) + 50 / (22 - cells) for credits, cells in ((2, 0), (12, 0), (6, 0))]
    assert found["leader"] == pytest.approx(-(near[1] - near[2]))
    # Player 2's only stack is shut in and its hand is empty; player 3 has nothing at all.
    assert found["actions"] == 1.0
    assert features(config, text.format(""), ring_supply=18)["actions"] == 0.5


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_mirrored_positions_have_the_same_scores(config: Config) -> None:
    player, rules = heuristic(config), load(config)
    for state in random_positions(config, 3, seed=5):
        moves, scores = player.scores(state)
        for k in range(1, len(rules.symmetries)):
            image_moves, image_scores = player.scores(rules.transform_state(state, k))
            expected = dict(zip(rules.transform_moves(state, moves, k).tolist(), scores, strict=True))
            assert set(image_moves.tolist()) == set(expected)
            for move, score in zip(image_moves.tolist(), image_scores, strict=True):
                assert score == pytest.approx(expected[move], abs=TIE / 10)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_choices_are_legal_and_do_not_depend_on_the_batch(config: Config) -> None:
    rules, states = load(config), np.stack(random_positions(config, 6, seed=9))
    player = make_player("heuristic:e0.30", config)
    before = states.copy()
    together = player.choose(states, [np.random.default_rng(n) for n in range(6)])
    alone = [int(player.choose(states[n : n + 1], [np.random.default_rng(n)])[0]) for n in range(6)]
    backwards = player.choose(states[::-1].copy(), [np.random.default_rng(n) for n in reversed(range(6))])[::-1]
    assert together.tolist() == alone == backwards.tolist()
    assert (states == before).all()
    assert all(move in rules.legal(state) for move, state in zip(together, states, strict=True))


def test_the_best_scored_move_is_played_and_the_policy_lines_up_with_the_legal_list() -> None:
    player, rules = heuristic(SQUARE), load(SQUARE)
    states = np.stack(random_positions(SQUARE, 20, seed=3))
    picks, policies = player.choose_with_policy(states, [np.random.default_rng(n) for n in range(20)])
    for state, pick, policy in zip(states, picks, policies, strict=True):
        moves, scores = player.scores(state)
        assert moves.tolist() == rules.legal(state).tolist()
        assert scores[moves.tolist().index(pick)] >= scores.max() - TIE
        assert policy.sum() == pytest.approx(1, abs=1e-5)
        assert policy[int(np.argmax(scores))] == policy.max()


def test_a_winning_move_is_found_and_a_losing_one_avoided() -> None:
    rules = load(SQUARE)
    # Seventeen of eighteen rings: landing on a marker credits the last one.
    state = rules.parse_text("move|1|active|0|0,14|17,0|0,0|3,3:1 7,7:2222|3,5:2|")
    moves, scores = heuristic(SQUARE).scores(state)
    assert scores.max() == WON
    rules.apply(state, int(heuristic(SQUARE).choose(state[None, :], [np.random.default_rng(0)])[0]))
    rules.advance_forced(state)
    assert rules.winner(state) == 1
    assert 0 < (scores == WON).sum() < moves.size


def test_ties_are_broken_evenly() -> None:
    scores = np.array([1.0, 5.0, 5.0 - TIE / 2, 5.0, -3.0])
    picked = [pick_best(scores, draw) for draw in np.linspace(0, 1, 300, endpoint=False)]
    assert {index: picked.count(index) for index in set(picked)} == {1: 100, 2: 100, 3: 100}


def test_soft_targets_follow_the_scores_and_leave_out_moves_that_lose_at_once() -> None:
    weights = np.empty(4, dtype=np.float32)
    soften(np.array([1.0, 2.0, 3.0, -WON]), 0.25, weights)
    spread = np.std([1.0, 2.0, 3.0])
    expected = np.exp((np.array([1.0, 2.0, 3.0]) - 3.0) / (0.25 * spread))
    assert weights[:3] == pytest.approx(expected / expected.sum(), rel=1e-4)
    assert weights[3] == 0
    soften(np.array([1.0, WON, WON, -WON]), 0.25, weights)
    assert weights.tolist() == [0.0, 0.5, 0.5, 0.0]
    soften(np.full(4, -WON), 0.25, weights)
    assert weights.tolist() == [0.25] * 4


def test_noise_is_part_of_the_identity_and_makes_other_moves() -> None:
    assert heuristic(SQUARE).identity == "heuristic:1"
    noisy = make_player("heuristic:e1", SQUARE)
    assert noisy.identity == "heuristic:1:e1.00"
    state = load(SQUARE).new()
    picks = noisy.choose(np.stack([state] * 400), [np.random.default_rng(n) for n in range(400)])
    assert len(set(picks.tolist())) > 150  # of 192 placements


@pytest.mark.parametrize("config", [SQUARE, HEX], ids=str)
def test_heuristic_beats_random_from_both_seats(config: Config) -> None:
    rules = load(config)
    players = {name: make_player(name, config) for name in ("heuristic", "random")}
    wins = 0
    for index in range(100):
        game, rng = LiveGame(rules, move_cap(config)), np.random.default_rng(index)
        while not game.settle():
            name = "heuristic" if game.player == index % 2 + 1 else "random"
            game.play(int(players[name].choose(game.state[None, :], [rng])[0]), checked=False)
        wins += rules.winner(game.state) == index % 2 + 1
    assert wins >= 90


def test_weights_are_those_of_the_table_and_every_feature_is_computed() -> None:
    assert WEIGHTS.tolist() == [feature.weight for feature in FEATURES]
    seen = dict.fromkeys((feature.name for feature in FEATURES), False)
    for config in (SQUARE, parse_config("square8_3p")):
        rules, player, rng = load(config), heuristic(config), np.random.default_rng(1)
        for _ in range(40):
            game = LiveGame(rules, move_cap(config))
            while not game.settle():
                for name, value in player.features(game.state, int(game.state[PLAYER])).items():
                    seen[name] |= value != 0
                game.play_at_random(rng.random(1), turns=10_000)
    assert all(seen.values()), seen
