"""The graph of a swarm: everybody can have everything, and nobody depends on those who should not be depended on."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from backend.distribution.torrent.graph import MESH, SEATS, Graph, Member, count_seats, draw
from backend.distribution.torrent.reach import HEAD, Way


def some(count: int) -> list[Member]:
    return [Member(f"h{n}", n) for n in range(1, count + 1)]


members = st.lists(
    st.builds(
        Member, name=st.just(""), position=st.integers(1, 9), mbit=st.none() | st.sampled_from([10.0, 100.0, 1000.0]),
        weak=st.booleans(), gone=st.booleans(), alone=st.booleans(), hungry=st.booleans(),
    ),
    min_size=1, max_size=70,
).map(lambda found: [replace(one, name=f"h{n}") for n, one in enumerate(found)])  # fmt: skip


def reached(graph: Graph) -> set[str]:
    """Who is connected with the head, by any way; connections carry pieces both ways."""
    near: dict[str, set[str]] = {name: set(dials) for name, dials in graph.dials.items()}
    for name, dials in graph.dials.items():
        for other in dials:
            near[other].add(name)
    todo = [name for holders in graph.seats for name in holders] + sorted(graph.whole)
    found = set(todo)
    while todo:
        new = near[todo.pop()] - found
        found |= new
        todo += new
    return found


@settings(deadline=None, max_examples=60)
@given(members, st.integers(0, SEATS))
def test_everybody_who_is_there_can_get_every_piece(people: list[Member], seats: int) -> None:
    graph = draw(people, seats)
    here = {one.name for one in people if not one.gone}
    assert reached(graph) == here
    assert set(graph.dials) == here
    assert all(holders for holders in graph.seats) or not here
    assert graph.whole or seats or not here


@st.composite
def walled(drawn: st.DrawFn) -> tuple[list[Member], frozenset[Way]]:
    """Hosts, and ways between them and to the head that are shut."""
    people = drawn(members)
    ends = [one.name for one in people]
    ways = st.tuples(st.sampled_from(ends), st.sampled_from([*ends, HEAD])).filter(lambda way: way[0] != way[1])
    return people, frozenset(drawn(st.lists(ways, max_size=4 * len(ends))) if len(ends) > 1 else ())


@settings(deadline=None, max_examples=200)
@given(walled(), st.integers(0, SEATS))
def test_no_way_that_is_shut_is_taken_and_whoever_has_one_gets_every_piece(
    made: tuple[list[Member], frozenset[Way]], seats: int
) -> None:
    people, blocked = made
    graph = draw(people, seats, None, blocked)
    assert not {(name, other) for name, dials in graph.dials.items() for other in dials} & blocked
    hungry = {one.name for one in people if one.hungry}
    at_head = {name for holders in graph.seats for name in holders} | (graph.whole - hungry)
    assert not {(name, HEAD) for name in at_head} & blocked
    here = {one.name for one in people if not one.gone}
    for island in islands(graph):
        held = {seat for seat, holders in enumerate(graph.seats) if island & set(holders)}
        if able := {name for name in island if (name, HEAD) not in blocked}:
            assert len(held) == seats > 0 or able & graph.whole
    assert {(name, HEAD) for name in here} <= blocked or all(graph.seats) or graph.whole


def islands(graph: Graph) -> list[set[str]]:
    """Hosts that are connected with each other."""
    found = [{name} for name in graph.dials]
    for name, dials in graph.dials.items():
        for other in dials:
            one = next(each for each in found if name in each)
            two = next(each for each in found if other in each)
            if one is not two:
                one |= two
                found.remove(two)
    return found


def test_a_host_that_reaches_nobody_is_dialled_and_one_without_the_head_has_no_seat() -> None:
    people = some(4)
    mute = frozenset({("h3", "h1"), ("h3", "h2"), ("h3", HEAD)})
    graph = draw(people, 4, None, mute)
    assert graph.seats == (("h1",), ("h2",), ("h4",), ("h4",)), "all others stay where they are"
    assert graph.dials == {"h1": ("h3",), "h2": ("h1", "h3"), "h3": (), "h4": ("h1", "h2", "h3")}
    assert graph.whole == frozenset()


def test_two_halves_that_do_not_reach_each_other_are_both_given_everything() -> None:
    people = some(4)
    wall = frozenset((f"h{a}", f"h{b}") for a in (1, 2) for b in (3, 4))
    graph = draw(people, 4, None, wall | {(b, a) for a, b in wall})
    assert graph.dials == {"h1": (), "h2": ("h1",), "h3": (), "h4": ("h3",)}
    assert graph.whole == {"h1", "h3"}


@settings(deadline=None, max_examples=60)
@given(members, st.integers(0, SEATS))
def test_nobody_dials_who_is_gone_or_weak_or_cannot_be_dialled(people: list[Member], seats: int) -> None:
    graph = draw(people, seats)
    by_name = {one.name: one for one in people}
    strong = [one for one in people if not (one.gone or one.weak)]
    for name, dials in graph.dials.items():
        assert name not in dials and len(set(dials)) == len(dials)
        for other in dials:
            assert not by_name[other].gone and not by_name[other].alone
            assert not by_name[other].weak or not strong
    for holders in graph.seats:
        assert not strong or not any(by_name[name].weak for name in holders)


def test_seats_go_by_position_and_each_host_has_one_while_there_are_as_many() -> None:
    people = [Member("late", 3), Member("gpu", 1), Member("second", 2)]
    assert count_seats(people) == 3
    assert draw(people, 3).seats == (("gpu",), ("second",), ("late",))
    assert draw(people, 3).dials == {"gpu": (), "second": ("gpu",), "late": ("gpu", "second")}


def test_one_host_alone_asks_the_head_for_everything() -> None:
    assert count_seats(some(1)) == 0
    assert draw(some(1), 0).whole == {"h1"}


def test_the_seat_of_a_host_that_is_gone_or_weak_goes_to_another() -> None:
    people = some(4)
    for change in ({"gone": True}, {"weak": True}):
        graph = draw([replace(people[0], **change), *people[1:]], 4)
        assert graph.seats == (("h2",), ("h2",), ("h3",), ("h4",)), "all others stay where they are"
        assert "h1" not in {name for dials in graph.dials.values() for name in dials}


def test_a_slow_link_that_is_known_makes_a_host_a_leaf() -> None:
    people = [replace(one, mbit=1000.0) for one in some(6)]
    people[0] = replace(people[0], mbit=20.0)
    assert count_seats(people) == 5
    graph = draw(people, 5)
    assert graph.seats_of("h1") == []
    assert len(graph.dials["h1"]) == 3
    assert all("h1" not in dials for dials in graph.dials.values())


def test_a_late_seat_is_given_to_a_second_host_too() -> None:
    assert draw(some(3), 3, {1: ["h3"]}).seats == (("h1",), ("h2", "h3"), ("h3",))
    assert draw(some(3), 3, {1: ["nobody"]}).seats == (("h1",), ("h2",), ("h3",))


def test_a_hungry_host_may_ask_the_head_for_everything() -> None:
    people = some(3)
    assert draw([*people[:2], replace(people[2], hungry=True)], 3).whole == {"h3"}


def test_many_hosts_have_few_neighbours_each_and_the_same_ones_at_the_next_drawing() -> None:
    people = some(64)
    graph = draw(people, count_seats(people))
    assert len(graph.seats) == SEATS and MESH < 64
    assert max(len(dials) for dials in graph.dials.values()) <= 5
    degree = {name: len(dials) for name, dials in graph.dials.items()}
    for dials in graph.dials.values():
        for other in dials:
            degree[other] += 1
    assert max(degree.values()) <= 40
    assert {"h62", "h63"} <= set(graph.dials["h64"])
    assert draw(people, SEATS) == graph
    without = draw([replace(one, gone=one.name == "h20") for one in people], SEATS)
    same = {name for name, dials in graph.dials.items() if without.dials.get(name) == dials}
    assert {name for name, dials in graph.dials.items() if "h20" not in dials} - {"h20"} <= same, "nobody else moves"
    assert without.seats == graph.seats
    third = draw([replace(one, gone=one.name == "h3") for one in people], SEATS)
    assert third.seats == (*graph.seats[:2], ("h17",), *graph.seats[3:])


def test_a_host_behind_nat_dials_those_who_would_have_dialled_it() -> None:
    people = [replace(some(1)[0], alone=True), *some(4)[1:]]
    assert draw(people, 4).dials == {"h1": ("h2", "h3", "h4"), "h2": (), "h3": ("h2",), "h4": ("h2", "h3")}
