"""Which host a job goes to, and what is said of those it does not go to."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.fleet.hosts import parse_hosts
from backend.jobs.model import Attempt, Exit, Job, Phase
from backend.jobs.placement import Asks, HostSlots, Load, choose, full, slots_of, unfit
from backend.jobs.recipes import RECIPES
from backend.jobs.reconcile import Place, World, reconcile

NOTHING = Asks()


def load(**jobs: int) -> Load:
    made = Load()
    for host, count in jobs.items():
        for _ in range(count):
            made.add(host, "train")
    return made


def job(number: int, **more: object) -> Job:
    return replace(Job(f"j{number}", number, "train"), **more)  # type: ignore[arg-type]


def placed(*jobs: Job, hosts: tuple[HostSlots, ...]) -> dict[str, str]:
    checks = {(one.id, one.next_n): None for one in jobs}
    found = reconcile(World(jobs, hosts=hosts, checks=checks))
    return {action.job: action.host for action in found.actions if isinstance(action, Place)}


@pytest.mark.parametrize(
    ("host", "asks", "reason"),
    [
        (HostSlots("a"), NOTHING, None),
        (HostSlots("a"), Asks(host="b"), "the job is bound to b"),
        (HostSlots("a", kinds=frozenset({"export"})), NOTHING, "takes no train jobs"),
        (HostSlots("a", role="voter"), Asks(role="trainer"), "its role is not trainer"),
        (HostSlots("a", role="trainer"), Asks(role="trainer"), None),
        (HostSlots("a"), Asks(gpu_vram_gb=8), "its GPU memory is not known (8 GB asked for)"),
        (HostSlots("a", gpu_vram_gb=7.9), Asks(gpu_vram_gb=8), "less than 8 GB of GPU memory"),
        (HostSlots("a", gpu_vram_gb=8), Asks(gpu_vram_gb=8), None),
        (HostSlots("a", memory_gb=15), Asks(memory_gb=16), "less than 16 GB of memory"),
        (HostSlots("a", memory_gb=16), Asks(memory_gb=16), None),
    ],
)
def test_a_host_that_lacks_what_a_job_asks_for_says_so(host: HostSlots, asks: Asks, reason: str | None) -> None:
    assert unfit(host, "train", asks) == reason


def test_a_host_is_full_by_its_places_and_by_those_of_the_kind() -> None:
    host = HostSlots("a", 3, caps={"train": 1})
    assert full(host, "train", load()) is None
    assert full(host, "train", load(a=1)) == "full for train (1 at a time)"
    assert full(host, "export", load(a=1)) is None
    assert full(host, "export", load(a=3)) == "full (3 at a time)"


def test_what_waits_is_told_in_a_few_words_and_per_host() -> None:
    hosts = (
        HostSlots("busy"),
        HostSlots("gone", closed="drained"),
        HostSlots("other", kinds=frozenset({"selfplay"})),
        HostSlots("small", gpu_vram_gb=4),
    )
    choice = choose("train", NOTHING, hosts[:3], load(busy=1))
    assert (choice.host, choice.why) == (None, "for a place on busy (1 at a time)")
    assert dict(choice.reasons) == {
        "takes no train jobs": ("other",), "full (1 at a time)": ("busy",), "drained": ("gone",),
    }  # fmt: skip
    assert choose("train", NOTHING, hosts[1:2], load()).why == "for a host: gone is drained"
    assert choose("train", NOTHING, hosts[2:3], load()).why == "no host takes train jobs"
    assert choose("train", Asks(gpu_vram_gb=8), hosts[3:], load()).why == (
        "no host fits: small: less than 8 GB of GPU memory"
    )
    assert choose("train", Asks(host="new"), hosts, load()).why == "for the host new, which is not in the hosts file"


def test_the_best_host_is_the_one_meant_for_the_kind_then_the_largest_gpu_then_the_least_busy() -> None:
    plain, gpu = HostSlots("plain", 2), HostSlots("gpu", 2, gpu_vram_gb=24)
    meant = HostSlots("meant", prefers=frozenset({"train"}))
    assert choose("train", NOTHING, (plain, gpu, meant), load()).host == "meant"
    assert choose("train", NOTHING, (plain, gpu), load()).host == "gpu"
    assert choose("selfplay", NOTHING, (plain, gpu), load()).host == "plain"
    assert choose("selfplay", NOTHING, (plain, gpu), load(plain=1)).host == "gpu"
    assert choose("export", NOTHING, (gpu, replace(plain, local=True)), load(plain=1)).host == "plain"


def test_higher_priorities_come_first_and_older_jobs_among_equals() -> None:
    jobs = (job(1), job(2, priority=5), job(3, priority=5), job(4, priority=-1))
    assert list(placed(*jobs, hosts=(HostSlots("a", 2),))) == ["j2", "j3"]
    assert list(placed(*jobs, hosts=(HostSlots("a", 3),))) == ["j2", "j3", "j1"]


def test_jobs_spread_over_hosts_and_bound_ones_wait_for_theirs() -> None:
    hosts = (HostSlots("a", 2), HostSlots("b", 2))
    assert placed(job(1), job(2), hosts=hosts) == {"j1": "a", "j2": "b"}
    bound = [job(n, asks=Asks(host="b")) for n in (1, 2, 3)]
    assert placed(*bound, hosts=hosts) == {"j1": "b", "j2": "b"}


def test_a_job_on_a_host_that_is_drained_goes_on_and_keeps_its_place() -> None:
    running = job(1, attempts=(Attempt("j1.1", "j1", 1, "a", Phase.RUNNING),))
    found = reconcile(World((running, job(2)), hosts=(HostSlots("a", 2, closed="drained"),)))
    assert found.actions == ()
    assert (found.views["j1"].state, found.views["j2"].why) == ("running", "for a host: a is drained")


def test_the_hosts_file_says_what_a_host_takes() -> None:
    text = """hosts:
  a: {role: trainer, gpu_vram_gb: 24, memory_gb: 64, max_parallel_jobs: 4, max_parallel: {selfplay: 3, training: 1},
      export_enabled: false, excluded_workloads: [gauntlet], preferred_workloads: [training], status: ready}
  b: {status: maintenance}
"""
    first, second = (slots_of(host, RECIPES) for host in parse_hosts(text, "f").hosts)
    assert (first.slots, first.cap("selfplay"), first.cap("train")) == (4, 3, 1)
    assert first.kinds == {"selfplay", "train", "command"}
    assert (first.gpu_vram_gb, first.memory_gb, first.role) == (24, 64, "trainer")
    assert (first.prefers, first.closed) == ({"train"}, "")
    assert second.closed == "maintenance by the hosts file"


def test_every_combination_of_asks_and_hosts_agrees_with_what_is_said_of_it() -> None:
    kinds = (None, frozenset({"train"}), frozenset({"export"}))
    for taken, vram, closed, busy, wanted, bound in product(
        kinds, (None, 8.0), ("", "drained"), (0, 1), (0.0, 8.0), (None, "a", "b")
    ):
        host = HostSlots("a", 1, taken, gpu_vram_gb=vram, closed=closed)
        choice = choose("train", Asks(bound, wanted), (host,), load(a=busy))
        good = (
            (taken is None or "train" in taken)
            and (wanted == 0 or vram is not None)
            and not closed
            and not busy
            and bound != "b"
        )
        assert (choice.host == "a") == good
        assert bool(choice.why) == bool(choice.reasons) == (not good)


HOSTS = st.lists(
    st.builds(
        HostSlots,
        st.just(""),
        st.integers(1, 4),
        st.sampled_from([None, frozenset({"train"}), frozenset({"train", "export"})]),
        st.dictionaries(st.sampled_from(["train", "export"]), st.integers(1, 3)),
        st.sampled_from([None, 0.0, 8.0, 24.0]),
        closed=st.sampled_from(["", "", "drained"]),
    ),
    max_size=4,
).map(lambda hosts: tuple(replace(host, name=f"h{n}") for n, host in enumerate(hosts)))
JOBS = st.lists(
    st.tuples(
        st.sampled_from(["train", "export", "selfplay"]),
        st.integers(-2, 2),
        st.sampled_from([0.0, 8.0]),
        st.sampled_from([None, None, "h0", "h9"]),
        st.sampled_from([None, "h0", "h1"]),
    ),
    max_size=8,
)


@given(HOSTS, JOBS)
def test_no_host_gets_more_than_it_takes_and_every_waiting_job_is_explained(
    hosts: tuple[HostSlots, ...], listed: list[tuple[str, int, float, str | None, str | None]]
) -> None:
    jobs = []
    for number, (kind, priority, vram, bound, where) in enumerate(listed, 1):
        name = f"j{number}"
        tried = (Attempt(f"{name}.1", name, 1, where, Phase.RUNNING),) if where else ()
        jobs.append(Job(name, number, kind, priority=priority, asks=Asks(bound, vram), attempts=tried))
    found = reconcile(World(jobs, hosts=hosts, checks={(one.id, one.next_n): None for one in jobs}))
    by_name = {host.name: host for host in hosts}
    places = [action for action in found.actions if isinstance(action, Place)]
    for host in hosts:
        new = [one for one in jobs if any(place.job == one.id and place.host == host.name for place in places)]
        old = [one for one in jobs if one.last and one.last.host == host.name]
        assert not new or len(old) + len(new) <= host.slots
        for one in new:
            assert unfit(host, one.kind, one.asks) is None and not host.closed
            same = [other for other in old + new if other.kind == one.kind]
            assert len(same) <= host.cap(one.kind)
    for one in jobs:
        if one.last is None and all(place.job != one.id for place in places):
            view = found.views[one.id]
            assert view.state == "waiting"
            assert {name for _, names in view.reasons for name in names} == set(by_name)
            assert view.why.startswith(("for ", "no host ", f"{one.asks.host} takes no"))


@given(HOSTS, st.permutations(range(6)), st.lists(st.integers(-1, 1), min_size=6, max_size=6))
def test_a_job_waits_only_while_no_job_behind_it_of_the_same_wishes_is_placed(
    hosts: tuple[HostSlots, ...], order: list[int], priorities: list[int]
) -> None:
    jobs = [Job(f"j{n}", n, "train", priority=priorities[n]) for n in order]
    went = set(placed(*jobs, hosts=hosts))
    ranked = sorted(jobs, key=lambda one: (-one.priority, one.number))
    assert went == {one.id for one in ranked[: len(went)]}


def test_an_ended_attempt_gives_its_place_back() -> None:
    done = job(1, attempts=(Attempt("j1.1", "j1", 1, "a", Phase.EXITED, Exit(code=0)),))
    assert placed(done, job(2), hosts=(HostSlots("a"),)) == {"j2": "a"}


def test_many_hosts_are_named_in_part_and_counted() -> None:
    hosts = tuple(HostSlots(f"h{n}", closed="drained") for n in range(40))
    ((reason, names),) = choose("train", NOTHING, hosts, load()).reasons
    assert (reason, len(names), names[-1]) == ("drained", 13, "and 28 more")


def test_no_two_jobs_have_the_same_gpu_and_who_has_it_is_told() -> None:
    host = HostSlots("a", 4, gpus=("0", "1"))
    first, second, third = (replace(job(n), asks=Asks(gpus=1)) for n in (1, 2, 3))
    checks = {(one.id, 1): None for one in (first, second, third)}
    found = reconcile(World((first, second, third), hosts=(host,), checks=checks))
    assert found.actions == (Place("j1", 1, "a", ("0",)), Place("j2", 1, "a", ("1",)))
    assert found.views["j3"].why == "for GPUs on a: its GPUs are leased (j1.1 j2.1)"
    lives = replace(first, attempts=(Attempt("j1.1", "j1", 1, "a", Phase.ORPHANED, gpus=("1",)),))
    found = reconcile(World((lives, second, third), hosts=(host,), checks=checks))
    assert found.actions == (Place("j2", 1, "a", ("0",)),)
    both = replace(job(4), asks=Asks(gpus=2))
    found = reconcile(World((lives, both), hosts=(host,), checks={("j4", 1): None}))
    assert dict(found.views["j4"].reasons) == {"its GPUs are leased (j1.1)": ("a",)}


def test_training_has_a_gpu_where_there_are_some_and_other_kinds_only_what_they_ask_for() -> None:
    with_gpus, without = HostSlots("a", 4, gpus=("0",)), HostSlots("b", 4, gpus=())
    unknown = HostSlots("c", 4)
    assert choose("train", NOTHING, (with_gpus,), load()).gpus == ("0",)
    assert choose("train", Asks(gpus=0), (with_gpus,), load()).gpus == ()
    assert choose("selfplay", NOTHING, (with_gpus,), load()).gpus == ()
    assert choose("selfplay", Asks(gpus=1), (with_gpus,), load()).gpus == ("0",)
    for host in (without, unknown):
        assert choose("train", NOTHING, (host,), load()) == choose("train", Asks(gpus=0), (host,), load())
    assert unfit(without, "train", Asks(gpus=1)) == "it has 0 GPUs (1 asked for)"
    assert unfit(unknown, "train", Asks(gpus=1)) == "its GPUs are not known (1 asked for)"
    assert Asks.of({"options": ["--device", "cpu"]}).gpus == 0
    assert Asks.of({"options": ["--device", "cpu"], "gpus": 2}).gpus == 2
    assert Asks.of({"options": ["--batch-size", "64"]}).gpus is None


def test_gpus_are_those_of_the_hosts_file_else_those_that_were_found() -> None:
    stated, silent = parse_hosts("hosts:\n  a: {gpus: 2}\n  b: {}\n", "f").hosts
    assert slots_of(stated, RECIPES, facts={"gpus": [0]}).gpus == ("0", "1")
    assert slots_of(silent, RECIPES, facts={"gpus": [0, 3]}).gpus == ("0", "3")
    assert slots_of(silent, RECIPES, facts={"gpu_problem": "no driver"}).gpus is None
    assert slots_of(silent, RECIPES).gpus is None
