"""The rules of archival: each alone, their order, and what keeps a model whatever the rules say."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.registry.policy import Facts, rule
from backend.thresholds import DEFAULT

FRESH = Facts("hex8_2p:v2", "development", ("hex8_2p", "v2_0123abcd.pth"), idle_days=1.0)


@pytest.mark.parametrize(
    ("changes", "action", "folder"),
    [
        ({}, "keep", ""),
        ({"idle_days": 7.0}, "keep", ""),
        ({"idle_days": 7.1}, "archive", "aged_out"),
        ({"names": ("Hex8_ITER12",), "idle_days": 3.1}, "archive", "iter_checkpoints"),
        ({"names": ("a_epoch_3.pth",), "idle_days": 3.1}, "archive", "iter_checkpoints"),
        ({"names": ("a_trial7",), "idle_days": 2.9}, "keep", ""),
        ({"names": ("iterations",), "idle_days": 3.1}, "keep", ""),
        ({"beaten_by": "hex8_2p:v9"}, "archive", "low_elo"),
        ({"duplicate_of": "hex8_2p:v1"}, "archive", "duplicates"),
        ({"games": 100, "elo": 1300.0, "elo_high": 1399.9}, "reject", "low_elo"),
        ({"games": 99, "elo": 1300.0, "elo_high": 1399.9}, "keep", ""),
        ({"games": 500, "elo": 1390.0, "elo_high": 1410.0}, "keep", ""),
        ({"games": 500}, "keep", ""),  # games without a rating say nothing
        ({"stage": "archived"}, "move", "low_elo"),
        ({"stage": "rejected"}, "move", "low_elo"),
        ({"stage": "archived", "in_archive": True}, "keep", ""),
        ({"stage": "shadow", "idle_days": 99.0}, "keep", ""),  # another program's stage
    ],
)
def test_each_rule(changes: dict[str, object], action: str, folder: str) -> None:
    found = rule(replace(FRESH, **changes), DEFAULT)  # type: ignore[arg-type]
    assert (found.action, found.folder) == (action, folder)
    assert found.reason


facts = st.builds(
    Facts,
    label=st.just("m:v1"),
    stage=st.sampled_from(["development", "staging", "production", "archived", "rejected"]),
    names=st.tuples(st.sampled_from(["m", "m_iter3"])),
    idle_days=st.floats(0, 100),
    games=st.integers(0, 500),
    elo_high=st.none() | st.floats(0, 3000),
    beaten_by=st.none() | st.just("m:v2"),
    duplicate_of=st.none() | st.just("m:v0"),
    in_archive=st.booleans(),
    held=st.sampled_from(["", "a job uses it"]),
)


@given(facts)
def test_what_is_protected_or_held_is_kept_whatever_the_rules_say(one: Facts) -> None:
    found = rule(one, DEFAULT)
    if one.stage in ("staging", "production") or one.held:
        assert found.action == "keep"
    if found.action == "reject":
        assert one.games >= 100 and one.elo_high is not None and one.elo_high < 1400
    assert (found.folder == "") == (found.action == "keep")


@given(facts)
def test_a_second_look_finds_nothing_left_to_do(one: Facts) -> None:
    found = rule(one, DEFAULT)
    after = {"archive": "archived", "reject": "rejected"}.get(found.action, one.stage)
    done = replace(one, stage=after, in_archive=one.in_archive or found.action != "keep")
    assert rule(done, DEFAULT).action == "keep"
