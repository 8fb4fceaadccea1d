"""How an attempt stands, from what the agent finds in its folder and what the scheduler says; pure.

The folder is the truth where it tells. The agent looks from the login host: that no runner holds the lock there may
mean that it died, or that its node's lock is not seen yet. What the scheduler does not know has not ended for that.
"""

from __future__ import annotations

from dataclasses import replace

from backend.jobs.launchers.slurm_answers import Word
from backend.jobs.model import Observation, Phase

_LOCAL = frozenset({Phase.EXITED, Phase.VOID, Phase.ABSENT, Phase.RUNNING, Phase.STARTING, Phase.ORPHANED})
"""Phases that the folder alone proves."""


def judge(seen: Observation, *, noted: bool, asked: bool, word: Word | None, settled: bool) -> Observation | None:
    """The attempt's observation, or None while nothing can be said.

    Args:
        seen: the agent's.
        noted: the scheduler was asked to run it, or was about to be.
        asked: the scheduler was asked about it since, and has answered.
        word: what it answered; None when it does not know the job (any more).
        settled: that no end is to be seen has lasted long enough for a file of another node to appear.
    """
    evidence = dict(seen.evidence) | ({"engine": word.text, "engine_job": word.job} if word else {})
    seen = replace(seen, evidence=evidence)
    if seen.phase in _LOCAL:
        return seen
    if seen.phase is Phase.PREPARED:
        if not noted:
            return seen
        if not asked:
            return None
        return replace(seen, phase=Phase.STARTING) if word and word.stage != "ended" else seen
    # It was executed, no runner holds its lock as far as is seen from here, and there is no record of its end.
    if not asked:
        return None
    if word is not None and word.stage == "running":
        return replace(seen, phase=Phase.RUNNING)
    return replace(seen, phase=Phase.UNKNOWN if settled else Phase.RUNNING)
