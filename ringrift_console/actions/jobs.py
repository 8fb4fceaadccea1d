"""Pipelines, jobs, the supervisor that carries them out, and what happened."""

from __future__ import annotations

from backend.snapshot import ENDED, Snapshot
from ringrift_console.actions.action import Action, Param, Tier
from ringrift_console.actions.params import DRY_RUN, JSON, SEED, WAIT
from ringrift_console.actions.subjects import find_job

_JOBS = "ringrift_console.verbs.jobs"


def _needs_job(snapshot: Snapshot, subject: str | None) -> str | None:
    return None if find_job(snapshot, subject) else "no job is selected"


def _can_cancel(snapshot: Snapshot, subject: str | None) -> str | None:
    job = find_job(snapshot, subject)
    if job is None:
        return "no job is selected"
    if job.state in ENDED:
        return f"the job has ended ({job.state})"
    return "it is being cancelled already" if job.state == "cancelling" else None


def _can_retry(snapshot: Snapshot, subject: str | None) -> str | None:
    job = find_job(snapshot, subject)
    if job is None:
        return "no job is selected"
    again = job.state in ("failed", "cancelled", "blocked", "unknown")
    return None if again else f"only an ended job runs again ({job.state})"


JOBS: tuple[Action, ...] = (
    Action(
        "pipeline.start",
        "Self-play, export, training and gauntlet of one config, in a row",
        "pipeline…",
        verb=("pipeline",),
        params=(
            Param("config", "config key, e.g. square8_2p", metavar="CONFIG"),
            Param("--games", "games that the config should have in all", type="int", metavar="N"),
            Param("--epochs", "training epochs", type="int", metavar="N"),
            Param("--gauntlet-games", "gauntlet games per opponent", type="int", metavar="N"),
            Param("--shards", "parts of self-play and gauntlet, spread over hosts", type="int", metavar="N"),
            Param("--gauntlet-shards", "parts of the gauntlet, when not as many", type="int", metavar="N"),
            Param("--nodes", "train on so many hosts at once, as a gang", type="int", metavar="N"),
            SEED,
            WAIT,
            DRY_RUN,
            JSON,
        ),
        run=f"{_JOBS}:pipeline",
        plan="backend.jobs.plans:plan_pipeline",
        key="p",
        scope="pulse",
        tier=Tier.PLAN,
    ),
    Action(
        "jobs.submit",
        "Submit one job: to the best host with room, or to the one named",
        "submit…",
        verb=("jobs", "submit"),
        params=(
            Param("kind", "selfplay export train gauntlet command, or one of recipes.toml", metavar="KIND"),
            Param("config", "config key, e.g. square8_2p", metavar="CONFIG"),
            Param("--host", "only on this host of the hosts file", metavar="HOST"),
            Param("--priority", "higher comes first; default 0", type="int", metavar="N"),
            Param("--after", "wait for this job to be done; repeat for several", repeat="append", metavar="JOB"),
            Param("--gpus", "GPUs for it alone; training has one where there are some", type="int", metavar="N"),
            Param("--nodes", "train on so many hosts at once, as a gang", type="int", metavar="N"),
            Param("--gpu-gb", "only on a host with so much GPU memory", type="float", metavar="GB"),
            Param("--memory-gb", "only on a host with so much memory", type="float", metavar="GB"),
            Param("--role", "only on hosts of this role", metavar="ROLE"),
            Param("--runtime", "builtin, or ai-service for a host's own checkout", metavar="NAME"),
            Param("args", "after --: options of the kind; a gauntlet's model; a command's words", repeat="*"),
            WAIT,
            DRY_RUN,
            JSON,
        ),
        run=f"{_JOBS}:submit",
        plan="backend.jobs.submit:plan_submit",
        tier=Tier.PLAN,
    ),
    Action(
        "jobs.list",
        "List jobs, newest first",
        verb=("jobs", "list"),
        params=(
            Param("--state", "only jobs in this state", metavar="STATE"),
            Param("--config", "only jobs of this config", metavar="KEY"),
            JSON,
        ),
        run=f"{_JOBS}:list_jobs",
    ),
    Action(
        "jobs.show",
        "Everything known of one job",
        "details",
        verb=("jobs", "show"),
        params=(Param("job", "job id, or the start of one", metavar="JOB"), JSON),
        run=f"{_JOBS}:show",
        key="d",
        scope="jobs",
        available=_needs_job,
    ),
    Action(
        "jobs.logs",
        "The log of a job",
        "log",
        verb=("jobs", "logs"),
        params=(
            Param("job", "job id, or the start of one", metavar="JOB"),
            Param("--follow", "go on until the job ends", type="flag", aliases=("-f",)),
            Param("--tail", "only the last N lines", type="int", metavar="N"),
            JSON,
        ),
        run=f"{_JOBS}:logs",
        key="l",
        scope="jobs",
        available=_needs_job,
    ),
    Action(
        "jobs.cancel",
        "Stop a job; what it finished is kept",
        "cancel…",
        verb=("jobs", "cancel"),
        params=(Param("job", "job id, or the start of one", metavar="JOB"), WAIT, DRY_RUN, JSON),
        run=f"{_JOBS}:cancel",
        plan="backend.jobs.plans:plan_cancel",
        key="x",
        scope="jobs",
        tier=Tier.PLAN,
        available=_can_cancel,
    ),
    Action(
        "jobs.retry",
        "Run an ended job again, or one whose outcome is unknown, as a new attempt",
        "retry…",
        verb=("jobs", "retry"),
        params=(Param("job", "job id, or the start of one", metavar="JOB"), WAIT, DRY_RUN, JSON),
        run=f"{_JOBS}:retry",
        plan="backend.jobs.plans:plan_retry",
        key="r",
        scope="jobs",
        tier=Tier.PLAN,
        available=_can_retry,
    ),
    Action(
        "events",
        "What happened, newest last",
        verb=("events",),
        params=(
            Param("--type", "only events of this type", metavar="TYPE"),
            Param("--last", "how many", type="int", default=50, metavar="N"),
            JSON,
        ),
        run=f"{_JOBS}:events",
    ),
    Action(
        "supervise",
        "Run the supervisor in the foreground",
        verb=("supervise",),
        params=(
            Param("--stop", "stop the running supervisor; jobs go on", type="flag"),
            Param("--detach", "start it in the background and return", type="flag"),
        ),
        run=f"{_JOBS}:supervise",
    ),
    Action(
        "status",
        "Configs, jobs and models in one page",
        verb=("status",),
        params=(JSON,),
        run="ringrift_console.verbs.status:status",
    ),
)
