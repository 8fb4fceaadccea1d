"""Positions in which a rule is easily got wrong, each played through. Stacks are written from the top down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from backend.rules import load
from backend.rules.layout import TURN

At = Callable[..., Any]
FAR = {"7,7": "2", "7,5": "1"}  # somebody else on the board, far away


def test_a_move_collapses_own_markers_flips_others_and_pays_for_the_marker_it_lands_on(at: At) -> None:
    p = at(stacks={"0,0": "11", **FAR}, markers={"1,0": "1", "2,0": "2", "4,0": "2"}).play("M 0,0 4,0")
    assert p.markers == {"0,0": "1", "2,0": "1"}
    assert p.collapsed == {"1,0": "1"}
    assert p.stacks == {"4,0": "1", **FAR}
    assert (p.eliminated, p.territory) == ([1, 0], [1, 0])


@pytest.mark.parametrize("owner", ["1", "2"])
def test_a_single_ring_that_lands_on_a_marker_vanishes_with_it(at: At, owner: str) -> None:
    p = at(stacks={"0,0": "1", **FAR}, markers={"1,0": owner}).play("M 0,0 1,0")
    assert p.markers == {"0,0": "1"}
    assert (p.stacks, p.collapsed) == (FAR, {})
    assert (p.eliminated, p.territory, p.phase) == ([1, 0], [0, 0], "line")


def test_a_capture_that_lands_on_a_marker_can_hand_the_stack_over(at: At) -> None:
    p = at(stacks={"0,0": "1", "1,0": "2", **FAR}, markers={"2,0": "2"}).play("C 0,0 1,0 2,0")
    assert p.stacks == {"2,0": "2", **FAR}
    assert p.markers == {"0,0": "1"}
    assert (p.eliminated, p.phase, p.player) == ([1, 0], "line", 1)


def test_a_chain_must_go_on_and_may_go_back_over_the_same_stack(at: At) -> None:
    p = at(stacks={"2,2": "11", "3,2": "2121", **FAR}).play("C 2,2 3,2 4,2")
    assert p.stacks["4,2"] == "112"
    assert p.stacks["3,2"] == "121"
    assert p.phase == "chain@4,2"
    assert p.legal() == {"K 4,2 3,2 1,2", "K 4,2 3,2 0,2"}
    p.play("K 4,2 3,2 1,2")
    assert (p.stacks["1,2"], p.stacks["3,2"]) == ("1121", "21")
    assert p.collapsed == {"2,2": "1"}


def test_caps_decide_about_captures_and_heights_about_distances(at: At) -> None:
    low = at(stacks={"0,0": "1222", "4,0": "21", "7,7": "2"})
    assert low.starting("C") == {f"C 0,0 4,0 {x},0" for x in (5, 6, 7)}
    assert at(stacks={"0,0": "1222", "4,0": "22", "7,7": "2"}).starting("C") == set()
    assert at(stacks={"0,0": "1", "1,0": "2121212"}).starting("C") == {f"C 0,0 1,0 {x},0" for x in range(2, 8)}


def test_own_stacks_may_be_captured(at: At) -> None:
    p = at(stacks={"0,0": "1", "1,0": "12", "7,7": "2"}).play("C 0,0 1,0 2,0")
    assert p.stacks == {"1,0": "2", "2,0": "11", "7,7": "2"}


def test_after_a_move_only_the_stack_that_moved_may_capture_or_not(at: At) -> None:
    stacks = {"0,0": "1", "3,0": "2", "5,5": "1", "6,5": "2"}
    assert at(stacks=stacks).starting("C 5,5") == {"C 5,5 6,5 7,5"}
    p = at(stacks=stacks).play("M 0,0 2,0")
    assert p.phase == "capture@2,0"
    assert p.legal() == {"SC", *(f"C 2,0 3,0 {x},0" for x in range(4, 8))}
    assert p.play("SC").phase == "line"


def test_a_ring_is_not_placed_where_it_could_not_move(at: At) -> None:
    walled = at(phase="place", hands=(5, 5), stacks=FAR, collapsed={"1,0": "1", "0,1": "1", "1,1": "1"})
    assert not any(text.endswith(" 0,0") for text in walled.legal())
    assert walled.starting("P1 7,7", "P2 7,7", "P3 7,7", "P1 2,2", "P2 2,2", "P3 2,2") == {
        "P1 7,7", "P1 2,2", "P2 2,2", "P3 2,2",
    }  # fmt: skip
    p = at(phase="place", hands=(5, 5), stacks=FAR).play("P3 0,0")
    assert {text.split()[1] for text in p.legal()} == {"0,0"}
    assert not {"M 0,0 1,0", "M 0,0 2,0"} & p.legal()
    assert "M 0,0 3,0" in p.legal()


def test_larger_placements_are_offered_only_where_a_single_ring_is_legal(at: At) -> None:
    blocked = {"1,0": "222", "0,1": "222", "1,1": "222", **FAR}
    assert not any(text.endswith(" 0,0") for text in at(phase="place", hands=(5, 5), stacks=blocked).legal())
    collapsed = {"2,0": "2", "1,1": "2"}
    half = at(phase="place", hands=(5, 5), stacks={"0,1": "222", **FAR}, collapsed=collapsed)
    assert half.starting("P1 0,0", "P2 0,0", "P3 0,0") == {"P1 0,0", "P3 0,0"}


def test_no_more_rings_are_placed_than_are_in_hand(at: At) -> None:
    p = at(phase="place", hands=(2, 5), stacks=FAR)
    assert p.starting("P2")
    assert not p.starting("P3")
    assert at(phase="place", hands=(0, 5), stacks=FAR).legal() == {"NP"}


def test_placing_on_a_stack_steals_it(at: At) -> None:
    p = at(phase="place", hands=(5, 5), stacks=FAR).play("P1 7,7")
    assert p.stacks["7,7"] == "12"
    assert p.phase == "move"
    assert {text.split()[1] for text in p.legal()} == {"7,7"}


def test_a_line_of_a_player_without_a_stack_costs_nothing(at: At) -> None:
    stacks = {"2,0": "1", "7,7": "2", "7,5": "3"}
    p = at("square8_3p", stacks=stacks, markers={"0,0": "1", "1,0": "1", "2,1": "2"}, hands=(0, 3, 3))
    p.play("M 2,0 2,1")
    assert p.legal() == {"L1 0,0 1,0 2,0"}
    p.play("L1 0,0 1,0 2,0")
    assert (p.phase, p.legal(), p.territory) == ("terr", {"NT"}, [3, 0, 0])


def test_a_paid_line_costs_a_top_ring_and_is_followed_by_a_word(at: At) -> None:
    row = {f"{x},0": "1" for x in range(4)}
    p = at(stacks={"5,5": "12", **FAR}, markers=row, phase="line", acted=True)
    p.play("L1 0,0 1,0 2,0 3,0")
    assert p.phase == "line_elim"
    assert p.legal() == {"EL 5,5", "EL 7,5"}
    p.play("EL 5,5")
    assert (p.stacks["5,5"], p.eliminated, p.legal()) == ("2", [1, 0], {"NL"})


def test_an_overlength_line_may_give_a_window_for_nothing(at: At) -> None:
    row = {f"{x},0": "1" for x in range(5)}
    p = at(stacks=FAR, markers=row, phase="line", acted=True)
    line = "0,0 1,0 2,0 3,0 4,0"
    windows = {f"L2 {line} / 0,0 1,0 2,0 3,0", f"L2 {line} / 1,0 2,0 3,0 4,0"}
    assert p.legal() == {f"L1 {line}", *windows}
    p.play(f"L2 {line} / 1,0 2,0 3,0 4,0")
    assert (p.phase, p.markers, p.territory, p.eliminated) == ("terr", {"0,0": "1"}, [4, 0], [0, 0])


def test_the_second_of_two_crossing_lines_is_gone_with_the_first(at: At) -> None:
    markers = {f"{x},0": "1" for x in range(4)} | {f"0,{y}": "1" for y in range(4)}
    p = at(stacks=FAR, markers=markers, phase="line", acted=True)
    assert len(p.legal()) == 2
    p.play("L1 0,0 1,0 2,0 3,0", "EL 7,5")
    assert p.legal() == {"NL"}


def test_who_can_do_nothing_gives_up_a_cap(at: At) -> None:
    p = at(phase="place", stacks={"0,0": "11222221", "7,7": "2"}, hands=(0, 3))
    p.play("NP", "NM", "NL")
    assert p.phase == "forced"
    assert p.legal() == {"F 0,0"}
    p.play("F 0,0")
    assert (p.stacks["0,0"], p.eliminated, p.phase, p.player) == ("222221", [2, 0], "place", 2)


def test_a_blocked_player_with_a_region_takes_it_instead(at: At) -> None:
    p = at(phase="place", stacks={"0,0": "12", "5,5": "2"}, collapsed={"1,0": "2", "0,1": "2", "1,1": "2"})
    p.play("NP", "NM", "NL")
    assert p.phase == "terr"
    regions = p.starting("T")
    assert len(regions) == 1
    assert len(next(iter(regions)).split()) == 61
    assert p.legal() == regions | {"ST"}
    p.play(next(iter(regions)), "ET 0,0")
    assert (p.stacks, p.territory, p.eliminated) == ({"0,0": "2"}, [60, 3], [2, 0])
    assert (p.rules.winner(p.state), p.rules.reason(p.state)) == (1, "territory")


def test_a_skipped_region_does_not_save_from_forced_elimination(at: At) -> None:
    p = at(phase="place", stacks={"0,0": "12", "5,5": "2"}, collapsed={"1,0": "2", "0,1": "2", "1,1": "2"})
    p.play("NP", "NM", "NL", "ST")
    assert p.legal() == {"F 0,0"}


def test_a_border_falls_with_every_marker_it_touches(at: At) -> None:
    markers = {"1,0": "1", "1,1": "1", "0,1": "1", "2,2": "2", "3,3": "2", "4,4": "1", "6,6": "2"}
    p = at(stacks={"0,0": "2", **FAR}, markers=markers, phase="terr", acted=True)
    p.play("T 0,0")
    assert set(p.collapsed) == {"0,0", "1,0", "1,1", "0,1", "2,2", "3,3", "4,4"}
    assert set(p.collapsed.values()) == {"1"}
    assert (p.territory, p.eliminated, p.markers) == ([7, 0], [1, 0], {"6,6": "2"})


@pytest.mark.parametrize(("config", "radius", "falls"), [("hex8_2p", 4, 6), ("hexagonal_2p", 12, 4)])
def test_a_border_spreads_on_hex8_and_stays_on_hexagonal(at: At, config: str, radius: int, falls: int) -> None:
    edge = -radius
    border = {f"{edge},1": "1", f"{edge + 1},0": "1", f"{edge + 1},-1": "1"}
    others = {f"{edge + 2},1": "2", f"{edge + 3},2": "2"}
    stacks = {f"{edge},0": "2", "2,0": "2", "3,0": "1"}
    p = at(config, stacks=stacks, markers=border | others, phase="terr", acted=True).play(f"T {edge},0")
    assert p.territory == [falls, 0]
    assert bool(p.markers) == (falls == 4)


def test_territory_wins_only_with_more_than_all_others_together(at: At) -> None:
    cells = [f"{x},{y}" for x in range(6) for y in range(8)]
    stacks = {"7,1": "1", "7,3": "2", "7,5": "3"}
    for theirs, over in ((22, False), (21, True)):
        owned = dict.fromkeys(cells[:22], "1") | dict.fromkeys(cells[22 : 22 + theirs], "2")
        p = at("square8_3p", stacks=stacks, collapsed=owned, phase="terr", acted=True).play("NT")
        assert p.territory == [22, theirs, 0]
        assert p.rules.over(p.state) is over
        assert p.rules.reason(p.state) == ("territory" if over else "")


def test_an_empty_pocket_is_a_region_once_a_marker_stands_anywhere(at: At) -> None:
    pocket = {"1,0": "1", "0,1": "2"}
    assert at(stacks=FAR, collapsed=pocket, phase="terr", acted=True).legal() == {"NT"}
    for player in (1, 2):
        p = at(stacks=FAR, collapsed=pocket, markers={"5,5": "2"}, phase="terr", acted=True, player=player)
        assert p.legal() == {"ST", "T 0,0"}


def test_only_colours_on_the_board_count_for_regions(at: At) -> None:
    p = at(stacks={"5,5": "1"}, markers={"1,0": "1", "0,1": "1"}, hands=(0, 5), phase="terr", acted=True)
    assert p.legal() == {"ST", "T 0,0"}


def test_a_region_is_taken_only_by_who_can_pay_from_outside(at: At) -> None:
    stacks = {"0,0": "1", "4,4": "2", "6,6": "2"}
    markers = {"1,0": "1", "0,1": "1"}
    p = at(stacks=stacks, markers=markers, phase="terr", acted=True)
    assert [len(text.split()) - 1 for text in p.starting("T")] == [61]
    p = at(stacks=stacks, markers=markers, phase="terr", acted=True, player=2)
    assert p.legal() == {"ST", "T 0,0"}


def test_a_board_in_one_piece_is_a_region_nobody_can_pay_for(at: At) -> None:
    p = at(stacks={"3,3": "12", "5,5": "1"}, markers={"6,1": "1"}, hands=(0, 0), phase="terr", acted=True)
    assert p.legal() == {"NT"}


def test_a_border_has_one_colour_or_is_collapsed(at: At) -> None:
    assert at(stacks=FAR, markers={"1,0": "1", "0,1": "2"}, phase="terr", acted=True).legal() == {"NT"}
    p = at(stacks=FAR, markers={"1,0": "1"}, collapsed={"0,1": "2"}, phase="terr", acted=True)
    assert p.legal() == {"ST", "T 0,0"}


def test_regions_with_the_same_cells_are_one_move(at: At) -> None:
    p = at(
        stacks={"0,0": "1", **FAR},
        markers={"5,5": "1", "5,3": "2"},
        collapsed={"1,0": "1", "0,1": "2"},
        phase="terr",
        acted=True,
    )
    assert [text for text in p.legal() if text == "T 0,0"] == ["T 0,0"]
    assert len(p.rules.legal(p.state)) == len(p.legal())


def test_rings_that_win_do_so_at_the_end_of_the_turn(at: At) -> None:
    p = at(stacks={"0,0": "1", **FAR}, markers={"1,0": "2"}, eliminated=(17, 3), hands=(3, 3)).play("M 0,0 1,0")
    assert (p.eliminated, p.phase) == ([18, 3], "line")
    p.play("NL")
    assert p.legal() == {"NT"}
    p.play("NT")
    assert (p.rules.winner(p.state), p.rules.reason(p.state)) == (1, "ring_elimination")
    assert p.rules.ranking(p.state).tolist() == [1, 2]


def test_a_bare_board_is_played_on_while_somebody_can_place(at: At) -> None:
    p = at(stacks={"0,0": "1"}, markers={"1,0": "2"}, hands=(0, 5)).play("M 0,0 1,0", "NL", "NT")
    assert (p.stacks, p.player, p.phase) == ({}, 2, "place")
    assert p.starting("P1")


@pytest.mark.parametrize(
    ("eliminated", "markers", "collapsed", "hands", "winner", "reason"),
    [
        ((2, 3), {"5,5": "2"}, {"7,7": "1", "6,7": "2"}, (0, 0), 1, "stalemate:last_actor"),
        ((2, 3), {}, {}, (0, 0), 1, "stalemate:markers"),
        ((2, 3), {"5,5": "2", "5,3": "2"}, {}, (0, 0), 2, "stalemate:markers"),
        ((2, 4), {}, {}, (0, 0), 2, "stalemate:eliminated"),
        ((2, 4), {}, {"7,7": "1"}, (0, 0), 1, "stalemate:territory"),
    ],
)
def test_a_bare_board_is_decided_by_a_ladder(
    at: At,
    eliminated: tuple[int, int],
    markers: dict[str, str],
    collapsed: dict[str, str],
    hands: tuple[int, int],
    winner: int,
    reason: str,
) -> None:
    p = at(
        stacks={"0,0": "1"}, markers={"1,0": "2", **markers}, eliminated=eliminated, collapsed=collapsed, hands=hands
    )
    p.play("M 0,0 1,0", "NL", "NT")
    assert (p.rules.winner(p.state), p.rules.reason(p.state)) == (winner, reason)


BURIED = {"1,1": "21", "5,5": "221"}


def test_recovery_slides_or_strikes_and_any_buried_ring_may_pay(at: At) -> None:
    p = at(stacks=BURIED, markers={"0,0": "1"})
    targets = {f"{slide} ! {payer}" for slide in ("RF 0,0 1,0", "RF 0,0 0,1", "RS 0,0 1,1") for payer in BURIED}
    assert p.legal() == targets | {"SR"}
    p.play("RF 0,0 1,0 ! 1,1")
    assert (p.stacks, p.markers, p.eliminated) == ({"1,1": "2", "5,5": "221"}, {"1,0": "1"}, [1, 0])


def test_a_strike_can_pay_with_the_ring_it_uncovered_or_win_the_stack(at: At) -> None:
    gone = at(stacks=BURIED, markers={"0,0": "1"}).play("RS 0,0 1,1 ! 1,1")
    assert (gone.stacks, gone.markers, gone.eliminated) == ({"5,5": "221"}, {}, [2, 0])
    won = at(stacks=BURIED, markers={"0,0": "1"}).play("RS 0,0 1,1 ! 5,5")
    assert (won.stacks, won.eliminated) == ({"1,1": "1", "5,5": "22"}, [2, 0])


def test_a_slide_that_makes_a_line_excludes_the_others_and_may_be_free(at: At) -> None:
    markers = {f"{x},0": "1" for x in range(4)} | {"5,1": "1"}
    p = at(stacks={"6,6": "21"}, markers=markers)
    assert p.starting("R1 5,1 4,0", "R2 5,1 4,0") == {"R1 5,1 4,0 ! 6,6", "R2 5,1 4,0 / 1,0 2,0 3,0 4,0"}
    assert not p.starting("RF", "RS")
    free = at(stacks={"6,6": "21"}, markers=markers).play("R2 5,1 4,0 / 1,0 2,0 3,0 4,0")
    assert (free.markers, free.territory, free.eliminated) == ({"0,0": "1"}, [4, 0], [0, 0])
    paid = at(stacks={"6,6": "21"}, markers=markers).play("R1 5,1 4,0 ! 6,6")
    assert (paid.markers, paid.territory, paid.eliminated) == ({}, [5, 0], [1, 0])
    assert paid.stacks == {"6,6": "2"}


def test_who_cannot_slide_skips(at: At) -> None:
    walls = {"1,0": "2", "0,1": "2", "1,1": "2"}
    assert at(stacks={"6,6": "21"}, markers={"0,0": "1"}, collapsed=walls).legal() == {"SR"}
    assert at(stacks={"6,6": "21"}).legal() == {"NM"}
    assert at(stacks={"6,6": "2"}, markers={"0,0": "1"}, hands=(2, 2)).legal() == {"NM"}


def test_recovery_is_reached_past_a_full_hand(at: At) -> None:
    p = at(stacks=BURIED, markers={"0,0": "1"}, hands=(2, 2), phase="place")
    assert "SP" in p.legal()
    assert p.starting("P1")
    assert "SR" in p.play("SP").legal()


def test_a_region_in_a_recovery_turn_is_paid_with_a_buried_ring(at: At) -> None:
    stacks = {"1,1": "11", "3,3": "12", "5,5": "21", "7,7": "121"}
    p = at(stacks=stacks, phase="terr_elim", acted=True, recovery=True)
    assert p.legal() == {"ER 1,1", "ER 5,5", "ER 7,7"}
    for cell, left in (("1,1", "1"), ("5,5", "2"), ("7,7", "12")):
        paid = at(stacks=stacks, phase="terr_elim", acted=True, recovery=True).play(f"ER {cell}")
        assert (paid.stacks[cell], paid.eliminated) == (left, [1, 0])


def test_a_normal_region_costs_a_whole_cap(at: At) -> None:
    p = at(stacks={"1,1": "1112", "7,7": "2"}, phase="terr_elim", acted=True)
    assert p.legal() == {"ET 1,1"}
    p.play("ET 1,1")
    assert (p.stacks["1,1"], p.eliminated) == ("2", [3, 0])


def test_only_own_lines_count_wherever_they_are_completed(at: At) -> None:
    theirs = {f"{x},7": "2" for x in range(4)}
    assert at(stacks=FAR, markers=theirs, phase="line", acted=True).legal() == {"NL"}
    nearly = {"0,1": "1", "1,1": "1", "2,1": "1", "3,1": "2"}
    p = at(stacks={"3,0": "1", **FAR}, markers=nearly).play("M 3,0 3,3")
    assert p.legal() == {"L1 0,1 1,1 2,1 3,1"}


def test_no_ring_is_placed_on_a_marker_or_a_collapsed_cell(at: At) -> None:
    p = at(stacks=FAR, markers={"3,3": "1", "4,4": "2"}, collapsed={"2,2": "1"}, hands=(5, 5), phase="place")
    assert not any(text.endswith((" 3,3", " 4,4", " 2,2")) for text in p.legal())


@pytest.mark.parametrize(("config", "length"), [("hex8_2p", 4), ("hex8_3p", 3), ("square8_4p", 3), ("square19_4p", 4)])
def test_lines_are_as_long_as_the_board_and_the_players_say(at: At, config: str, length: int) -> None:
    stacks = {"2,2": "1", "1,3": "2"}
    for count in (length - 1, length):
        row = {f"{x},0": "1" for x in range(count)}
        p = at(config, stacks=stacks, markers=row, phase="line", acted=True)
        assert bool(p.starting("L1")) == (count == length)


def test_sides_are_swapped_once_and_only_by_player_2_before_placing(at: At) -> None:
    rules = load("square8_2p")
    state = rules.new(swap=True)
    for text in ("P1 0,0", "M 0,0 1,0", "NL", "NT"):
        assert "SW" not in {rules.move_text(state, move) for move in rules.legal(state)}
        rules.apply(state, rules.parse_move(state, text))
    before = rules.text(state)
    refused = state.copy()
    rules.apply(state, rules.parse_move(state, "SW"))
    assert rules.text(state) == before
    assert "SW" not in {rules.move_text(state, move) for move in rules.legal(state)}
    for text in ("P1 5,5", "M 5,5 5,6", "NL", "NT", "SP", "M 1,0 1,1", "NL", "NT"):
        rules.apply(refused, rules.parse_move(refused, text))
    assert rules.player(refused) == 2
    assert "SW" not in {rules.move_text(refused, move) for move in rules.legal(refused)}


def _stand(at: At, rounds: int) -> Any:
    """Player 2 holds eight walled stacks and nothing else; player 1 places and moves."""
    walled = [f"{x},{y}" for x in (0, 2, 4, 6) for y in (5, 7)]
    walls = [f"{x},{y}" for x in range(8) for y in range(4, 8) if f"{x},{y}" not in walled]
    stacks = {"0,0": "1"} | dict.fromkeys(walled, "2")
    p = at(stacks=stacks, collapsed=dict.fromkeys(walls, "2"), hands=(12, 0), phase="place", lps_rounds=rounds)
    while not p.rules.over(p.state):
        legal = p.legal()
        quiet = [text for text in ("NP", "NM", "SC", "NL", "NT", "ST") if text in legal]
        p.play(quiet[0] if quiet else min(legal))
    return p


def test_the_only_player_who_can_move_wins_after_the_rounds_set(at: At) -> None:
    turns = []
    for rounds in (1, 2, 3):
        p = _stand(at, rounds)
        assert (p.rules.winner(p.state), p.rules.reason(p.state)) == (1, "lps_rounds")
        turns.append(int(p.state[TURN]))
    assert turns[1] - turns[0] == turns[2] - turns[1] == 2


def test_the_only_player_with_rings_wins_at_once(at: At) -> None:
    p = at(stacks={"0,0": "1", "1,0": "2"}, hands=(3, 0)).play("C 0,0 1,0 2,0", "NL", "NT")
    assert p.rules.over(p.state) is False  # player 2 still has a buried ring
    p = at(stacks={"0,0": "1"}, hands=(3, 0)).play("M 0,0 1,0", "NL", "NT")
    assert (p.rules.winner(p.state), p.rules.reason(p.state)) == (1, "lps_early")


def test_a_player_without_any_ring_is_passed_over(at: At) -> None:
    p = at("square8_3p", stacks={"0,0": "1", "5,5": "3"}, hands=(3, 0, 3)).play("M 0,0 0,1", "NL", "NT")
    assert p.player == 3
