"""The one registry of actions: keys, footer, help, command line, palette, CLI verbs and documentation come from here.

An action that changes something has a ``plan`` function; the console shows the plan in a dialog, the CLI carries it
out (or prints it under ``--dry-run``), and both write the same operation. Nothing here imports a screen or a worker:
handlers and plan functions are named by ``module:function`` and imported when they run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from importlib import import_module
from typing import Any, Literal

from backend.snapshot import ENDED, AlarmRow, HostRow, JobRow, ModelRow, Snapshot, TransferRow


class Tier(IntEnum):
    """How much an action asks before it acts."""

    READ = 0  # changes nothing
    PLAN = 1  # a plan dialog, Cancel is the default
    NAMED = 2  # a plan dialog, answered by typing the object's name; a plan may ask for that by itself


Scope = Literal[
    "global", "move", "list", "pulse", "hosts", "jobs", "models", "elo", "transfers", "policies", "log"
]  # fmt: skip
"""Where a key holds: everywhere; wherever one moves about; on tables; on one screen."""


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter of an action. A name that starts with ``--`` is an option, any other a positional argument."""

    name: str
    help: str
    type: Literal["str", "int", "float", "flag", "path"] = "str"
    default: Any = None
    choices: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    required: bool = False
    repeat: Literal["", "+", "*", "append"] = ""
    metavar: str | None = None


@dataclass(frozen=True, slots=True)
class Action:
    """One thing an operator can do.

    Attributes:
        name: identity, dotted, e.g. ``jobs.cancel``.
        help: one line.
        label: the word in the footer; "…" at its end means that a dialog follows.
        verb: words on the command line, e.g. ``("jobs", "cancel")``; empty when it only makes sense on screen.
        run: CLI handler ``module:function`` with signature ``(args, paths) -> exit code``.
        plan: ``module:function``, async ``(paths, **params) -> Plan``.
        key: default key on the screens of ``scope``.
        available: reason why it cannot be done now on ``subject`` (a job id, a model label, a config key), or None.
    """

    name: str
    help: str
    label: str = ""
    verb: tuple[str, ...] = ()
    params: tuple[Param, ...] = ()
    run: str = ""
    plan: str = ""
    key: str = ""
    scope: Scope = "global"
    tier: Tier = Tier.READ
    footer: bool = True
    available: Callable[[Snapshot, str | None], str | None] = field(default=lambda snapshot, subject: None)


def load(reference: str) -> Callable[..., Any]:
    """The function that ``module:function`` names."""
    module, _, name = reference.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function


def find_job(snapshot: Snapshot, subject: str | None) -> JobRow | None:
    return next((job for job in snapshot.jobs if job.id == subject), None)


_models: tuple[tuple[ModelRow, ...], dict[str, ModelRow]] = ((), {})


def models_by_name(models: tuple[ModelRow, ...]) -> dict[str, ModelRow]:
    """Models by SHA-256 and by label; made once for as long as the same tuple is asked for."""
    global _models
    if _models[0] is not models:
        found: dict[str, ModelRow] = {}
        for model in reversed(models):
            found[model.sha256] = found[model.label] = model
        _models = (models, found)
    return _models[1]


def find_model(snapshot: Snapshot, subject: str | None) -> ModelRow | None:
    return models_by_name(snapshot.models).get(subject) if subject else None


def find_host(snapshot: Snapshot, subject: str | None) -> HostRow | None:
    return next((host for host in snapshot.hosts if host.name == subject), None)


def find_transfer(snapshot: Snapshot, subject: str | None) -> TransferRow | None:
    return next((row for row in snapshot.transfers if row.id == subject), None)


def _needs_transfer(snapshot: Snapshot, subject: str | None) -> str | None:
    return None if find_transfer(snapshot, subject) else "no transfer is selected"


def _can_pause(snapshot: Snapshot, subject: str | None) -> str | None:
    row = find_transfer(snapshot, subject)
    if row is None:
        return "no transfer is selected"
    if row.ended_at is not None:
        return "it has ended"
    return "it is paused already" if row.paused is not None else None


def _can_resume(snapshot: Snapshot, subject: str | None) -> str | None:
    row = find_transfer(snapshot, subject)
    if row is None:
        return "no transfer is selected"
    return None if row.paused is not None and row.ended_at is None else "it is not paused"


def _can_end_transfer(snapshot: Snapshot, subject: str | None) -> str | None:
    row = find_transfer(snapshot, subject)
    if row is None:
        return "no transfer is selected"
    return "it has ended" if row.ended_at is not None else None


def _can_retry_transfer(snapshot: Snapshot, subject: str | None) -> str | None:
    row = find_transfer(snapshot, subject)
    if row is None:
        return "no transfer is selected"
    again = any(host.state in ("failed", "cancelled", "blocked") for host in row.hosts)
    return None if again else "no host of it has failed"


def _can_verify(snapshot: Snapshot, subject: str | None) -> str | None:
    row = find_transfer(snapshot, subject)
    if row is None:
        return "no transfer is selected"
    return None if row.live else "no host has the file yet"


def _needs_host(snapshot: Snapshot, subject: str | None) -> str | None:
    return None if find_host(snapshot, subject) else "no host is selected"


def _can_enrol(snapshot: Snapshot, subject: str | None) -> str | None:
    host = find_host(snapshot, subject)
    if host is None:
        return "no host is selected"
    return "this machine needs no key" if host.local else None


def _can_bootstrap(snapshot: Snapshot, subject: str | None) -> str | None:
    host = find_host(snapshot, subject)
    if host is None:
        return "no host is selected"
    if host.local:
        return "this machine runs this installation"
    return None if host.fingerprint else "its key is not enrolled"


def _can_drain(snapshot: Snapshot, subject: str | None) -> str | None:
    host = find_host(snapshot, subject)
    if host is None:
        return "no host is selected"
    return "it is drained already" if host.drained is not None else None


def _can_undrain(snapshot: Snapshot, subject: str | None) -> str | None:
    host = find_host(snapshot, subject)
    if host is None:
        return "no host is selected"
    return "it is not drained" if host.drained is None else None


def _can_reload(snapshot: Snapshot, subject: str | None) -> str | None:
    return None if any(host.changed for host in snapshot.hosts) else "the hosts file has not changed"


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


FOREIGN = "it is another installation's; ringrift adopt takes it in"


def find_alarm(snapshot: Snapshot, subject: str | None) -> AlarmRow | None:
    """The open alarm of a number or a config, else the only one there is."""
    named = [one for one in snapshot.alarms if subject in (str(one.id), one.config)]
    found = named or (snapshot.alarms if len(snapshot.alarms) == 1 else ())
    return found[0] if found else None


def _needs_alarm(snapshot: Snapshot, subject: str | None) -> str | None:
    if find_alarm(snapshot, subject):
        return None
    return "no alarm is open" if not snapshot.alarms else "put the cursor on one of the configs with an alarm"


def _needs_model(snapshot: Snapshot, subject: str | None) -> str | None:
    return None if find_model(snapshot, subject) else "no model is selected"


def _can_archive(snapshot: Snapshot, subject: str | None) -> str | None:
    model = find_model(snapshot, subject)
    if model is None:
        return "no model is selected"
    if model.foreign:
        return FOREIGN
    if model.stage in ("production", "staging"):
        return f"a {model.stage} model is protected"
    return "it is archived already" if model.stage == "archived" else None


def _can_promote(snapshot: Snapshot, subject: str | None) -> str | None:
    model = find_model(snapshot, subject)
    if model is None:
        return "no model is selected"
    if model.foreign:
        return FOREIGN
    return None if model.stage in ("development", "staging") else f"a model that is {model.stage} is not promoted"


def _can_roll_back(snapshot: Snapshot, subject: str | None) -> str | None:
    model = find_model(snapshot, subject)
    if model is None:
        return "no model is selected"
    return None if model.stage == "production" else "only a production model can be rolled back from"


def _can_restore(snapshot: Snapshot, subject: str | None) -> str | None:
    model = find_model(snapshot, subject)
    if model is None:
        return "no model is selected"
    if model.foreign:
        return FOREIGN
    return None if model.stage in ("archived", "rejected") else f"a model that is {model.stage} needs no restoring"


def _can_reject(snapshot: Snapshot, subject: str | None) -> str | None:
    model = find_model(snapshot, subject)
    if model is None:
        return "no model is selected"
    if model.foreign:
        return FOREIGN
    return None if model.stage in ("development", "staging") else f"a model that is {model.stage} cannot be rejected"


CONFIG = (
    Param("--config", "config key, e.g. hex8_2p", metavar="KEY"),
    Param("--board-type", "board: square8 square19 hex8 hexagonal", aliases=("--board",), metavar="BOARD"),
    Param("--num-players", "2, 3 or 4", type="int", metavar="N"),
)
JSON = Param("--json", "print JSON", type="flag")
DRY_RUN = Param("--dry-run", "print the plan and change nothing", type="flag")
WAIT = Param("--wait", "stay until it has ended and exit with its outcome", type="flag")
HOST = Param("host", "name in hosts.yaml", metavar="HOST")
TRANSFER = Param("transfer", "id of a transfer", metavar="ID")
HOSTS_FILE = Param("--hosts", "hosts file to use; default RINGRIFT_HOSTS, else the root's", type="path", metavar="FILE")
ALARM = Param("alarm", "number of an alarm", metavar="ALARM")
MODEL = Param("model", "label, SHA-256 or the start of one", metavar="MODEL")
REASON = Param("--reason", "why, in words; kept for ever", metavar="TEXT")
SEED = Param("--seed", "seed of all random choices", type="int", metavar="N")

_RULES = "ringrift_console.verbs.rules"
_TRAINING = "ringrift_console.verbs.training"
_JOBS = "ringrift_console.verbs.jobs"
_HOSTS = "ringrift_console.verbs.hosts"
_TRANSFERS = "ringrift_console.verbs.transfers"
_MONITOR = "ringrift_console.verbs.monitor"
_RATINGS = "ringrift_console.verbs.ratings"
_REGISTRY = "ringrift_console.verbs.registry"
_REFERENCE = "ringrift_console.verbs.reference"
_POLICIES = "ringrift_console.verbs.policies"

ACTIONS: tuple[Action, ...] = (
    # on screen only
    Action("go.pulse", "Pulse: the twelve configs, what runs, what needs you", "Pulse", key="1"),
    Action("go.hosts", "Hosts: where jobs run, and how these machines are", "Hosts", key="2"),
    Action("go.jobs", "Jobs: self-play, export, training, gauntlets", "Jobs", key="3"),
    Action("go.models", "Models: the registry", "Models", key="4"),
    Action("go.elo", "Elo: ratings over time, all configs, who beats whom", "Elo", key="5"),
    Action("go.transfers", "Transfers: files on their way to hosts", "Transfers", key="6"),
    Action("help", "What every key does here; runs any of it", "help", key="question_mark"),
    Action("command", "Type an action by name, as on the command line", "command", key="colon"),
    Action("quit", "Leave the console; jobs go on", "quit", key="q"),
    Action("palette", "Find an action or an object", "palette", key="ctrl+p", footer=False),
    Action("time", "Times as local, UTC or age", "time", key="T", footer=False),
    Action("supervisor.start", "Start the supervisor if it is down", "start supervisor", key="S", footer=False),
    Action("redraw", "Draw the whole screen again", "redraw", key="ctrl+l", footer=False),
    Action("suspend", "Stop the console and go to the shell; fg comes back", "suspend", key="ctrl+z", footer=False),
    Action("back", "One step back: out of a filter, a dialog, a detail", "back", key="escape", footer=False),
    Action("row.down", "Down", key="j,down", scope="move", footer=False),
    Action("row.up", "Up", key="k,up", scope="move", footer=False),
    Action("page.down", "A page down", key="ctrl+d,pagedown", scope="move", footer=False),
    Action("page.up", "A page up", key="ctrl+u,pageup", scope="move", footer=False),
    Action("row.first", "To the first row", key="g,home", scope="move", footer=False),
    Action("row.last", "To the last row", key="G,end", scope="move", footer=False),
    Action("open", "Open what the cursor is on", "open", key="enter", scope="list"),
    Action("filter", "Show only rows that match: words, !word, column=word", "filter", key="slash", scope="list"),
    Action("pane.next", "Next pane", "pane", key="tab", scope="list", footer=False),
    Action("pane.previous", "Previous pane", key="shift+tab", scope="list", footer=False),
    Action("sort", "Sort by the next column", "sort", key="o", scope="list", footer=False),
    Action("sort.reverse", "Turn the order round", key="O", scope="list", footer=False),
    Action("elo.view", "Chart of a config, all configs, head to head, list", "view", key="v", scope="elo"),
    Action("elo.next", "Next config", "config", key="right_square_bracket", scope="elo"),
    Action("elo.previous", "Config before", key="left_square_bracket", scope="elo", footer=False),
    Action("elo.zoom", "Near: only the chosen model's error band; far: everything", "zoom", key="z", scope="elo"),
    Action("elo.champion", "Choose the production model of the config", "champion", key="b", scope="elo", footer=False),
    Action("elo.left", "Cursor to the left: an earlier point, a column", key="h,left", scope="elo", footer=False),
    Action("elo.right", "Cursor to the right: a later point, a column", key="l,right", scope="elo", footer=False),
    Action("transfers.swarm", "The hosts as a table, or who feeds whom", "swarm", key="w", scope="transfers"),
    Action("log.follow", "Follow the end of the log, or hold still", "follow", key="f", scope="log"),
    Action("log.search", "Search the log; case counts only if you type capitals", "search", key="slash", scope="log"),
    Action("log.next", "Next match, towards the end", "next", key="n", scope="log"),
    Action("log.previous", "Previous match, towards the start", "previous", key="N", scope="log"),
    Action("log.wrap", "Wrap long lines, or cut them", "wrap", key="w", scope="log"),
    Action("log.times", "Times of the lines: as written, on the chosen clock, hidden", "times", key="t", scope="log"),
    Action("log.left", "Left along cut lines", key="h,left", scope="log", footer=False),
    Action("log.right", "Right along cut lines", key="l,right", scope="log", footer=False),
    # pipelines and jobs
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
    # work: what recipes run, on this machine or another
    Action(
        "selfplay",
        "Play games into the config's database",
        verb=("selfplay",),
        params=(
            *CONFIG,
            Param("--games", "games to add", type="int", metavar="N"),
            Param("--until", "play until the database holds N games", type="int", metavar="N"),
            Param("--players", "player per seat, or one for all", default="heuristic:e0.05", metavar="NAMES"),
            Param("--first", "lowest game of the seed to play", type="int", default=0, metavar="N"),
            Param("--workers", "processes; default one a core", type="int", metavar="N"),
            SEED,
            JSON,
        ),
        run="ringrift_console.verbs.selfplay:selfplay",
    ),
    Action(
        "export",
        "Turn recorded games into a training dataset",
        verb=("export",),
        params=(
            *CONFIG,
            Param("--db", "games database; repeat for several", type="path", repeat="append", metavar="F.db"),
            Param("--use-discovery", "find the databases under the root", type="flag"),
            Param("--output", "dataset to write", type="path", metavar="F.npz"),
            Param("--validation", "fraction of games held out", type="float", default=0.1, metavar="X"),
            Param("--max-games", "use at most N games, newest first", type="int", metavar="N"),
            JSON,
        ),
        run=f"{_TRAINING}:export",
    ),
    Action(
        "train",
        "Train a network and register it",
        verb=("train",),
        params=(
            *CONFIG,
            Param("--data-path", "dataset", type="path", metavar="F.npz"),
            Param("--save-path", "checkpoint to write", type="path", metavar="M.pth"),
            Param("--epochs", "passes over the data", type="int", metavar="N"),
            Param("--batch-size", "samples a step", type="int", metavar="N"),
            Param("--lr", "peak learning rate", type="float", aliases=("--learning-rate",), metavar="X"),
            Param("--blocks", "residual blocks", type="int", metavar="N"),
            Param("--channels", "channels of the trunk", type="int", metavar="N"),
            Param("--resume", "go on from the last training state", type="flag"),
            Param("--init-weights", "start from this checkpoint", type="path", metavar="M.pth"),
            Param("--device", "cpu, cuda or mps; default the best there is", metavar="DEV"),
            Param("--no-register", "leave the registry alone", type="flag"),
            SEED,
            JSON,
        ),
        run=f"{_TRAINING}:train",
    ),
    Action(
        "gauntlet",
        "Play a model against Random and Heuristic",
        verb=("gauntlet",),
        params=(
            Param(
                "model", "checkpoint file, registered model (label or SHA-256), random or heuristic", metavar="MODEL"
            ),
            *CONFIG,
            Param("--games", "games per opponent", type="int", default=100, metavar="N"),
            Param("--simulations", "search simulations a move; 0 plays the bare policy", type="int", metavar="N"),
            Param("--opponents", "comma list", default="random,heuristic", metavar="NAMES"),
            Param("--run", "id of a run to go on with", metavar="ID"),
            Param("--first-block", "lowest opening of the run to play", type="int", default=0, metavar="N"),
            Param("--workers", "processes; default one a core", type="int", metavar="N"),
            SEED,
            JSON,
        ),
        run="ringrift_console.verbs.evaluation:gauntlet",
    ),
    # hosts
    Action(
        "hosts.list",
        "Hosts and how they are; asks those that were not asked within a minute",
        verb=("hosts", "list"),
        params=(Param("--cached", "ask nobody, print what is stored", type="flag"), HOSTS_FILE, JSON),
        run=f"{_HOSTS}:list_hosts",
    ),
    Action(
        "hosts.show",
        "Everything known of one host",
        "details",
        verb=("hosts", "show"),
        params=(HOST, HOSTS_FILE, JSON),
        run=f"{_HOSTS}:show",
        key="d",
        scope="hosts",
        available=_needs_host,
    ),
    Action(
        "hosts.probe",
        "Ask hosts for their facts, and say what is missing there",
        "probe…",
        verb=("hosts", "probe"),
        params=(Param("host", "names in hosts.yaml; none means all", repeat="*", metavar="HOST"), HOSTS_FILE, JSON),
        run=f"{_HOSTS}:probe",
        plan="backend.fleet.plans:plan_probe",
        key="p",
        scope="hosts",
        tier=Tier.PLAN,
        available=_needs_host,
    ),
    Action(
        "hosts.enrol",
        "Trust the key that a host shows, after comparing its fingerprint",
        "enrol…",
        verb=("hosts", "enrol"),
        params=(
            HOST,
            Param("--fingerprint", "the fingerprint that was compared, SHA256:...", metavar="FP"),
            HOSTS_FILE,
            WAIT,
            DRY_RUN,
            JSON,
        ),
        run=f"{_HOSTS}:enrol",
        plan="backend.fleet.plans:plan_enrol",
        key="e",
        scope="hosts",
        tier=Tier.PLAN,
        available=_can_enrol,
    ),
    Action(
        "hosts.bootstrap",
        "Set a host up: its environment, and this code by its hash",
        "bootstrap…",
        verb=("hosts", "bootstrap"),
        params=(HOST, HOSTS_FILE, WAIT, DRY_RUN, JSON),
        run=f"{_HOSTS}:bootstrap",
        plan="backend.fleet.plans:plan_bootstrap",
        key="b",
        scope="hosts",
        tier=Tier.PLAN,
        available=_can_bootstrap,
    ),
    Action(
        "hosts.drain",
        "Place no new jobs on a host; those that run there go on",
        "drain…",
        verb=("hosts", "drain"),
        params=(
            HOST,
            Param("--reason", "why, in words", metavar="TEXT"),
            HOSTS_FILE,
            WAIT,
            DRY_RUN,
            JSON,
        ),
        run=f"{_HOSTS}:drain",
        plan="backend.fleet.plans:plan_drain",
        key="D",
        scope="hosts",
        tier=Tier.PLAN,
        available=_can_drain,
    ),
    Action(
        "hosts.undrain",
        "Place new jobs on a drained host again",
        "undrain…",
        verb=("hosts", "undrain"),
        params=(HOST, HOSTS_FILE, WAIT, DRY_RUN, JSON),
        run=f"{_HOSTS}:undrain",
        plan="backend.fleet.plans:plan_undrain",
        key="U",
        scope="hosts",
        tier=Tier.PLAN,
        available=_can_undrain,
    ),
    Action(
        "hosts.reload",
        "Let the supervisor go by the hosts file as it is now; the plan shows what changes",
        "reload…",
        verb=("hosts", "reload"),
        params=(HOSTS_FILE, WAIT, DRY_RUN, JSON),
        run=f"{_HOSTS}:reload",
        plan="backend.fleet.reload:plan_reload",
        key="R",
        scope="hosts",
        tier=Tier.PLAN,
        available=_can_reload,
    ),
    Action(
        "hosts.shell",
        "A shell on a host, with ssh and the enrolled key",
        "shell",
        verb=("hosts", "shell"),
        params=(HOST, HOSTS_FILE),
        run=f"{_HOSTS}:shell",
        key="s",
        scope="hosts",
        available=_needs_host,
    ),
    # transfers
    Action(
        "transfers.distribute",
        "Bring a model or a file to hosts, GPU hosts first, proved where it arrives",
        "distribute…",
        verb=("distribute",),
        params=(
            Param("what", "label or SHA-256 of a model, or a file", metavar="MODEL|FILE"),
            Param("--hosts", "names in hosts.yaml with commas; default all in use", metavar="NAMES"),
            Param("--transport", "use only this one", metavar="NAME"),
            Param("--limit", "Mbit/s of this machine's uplink that it may take", type="float", metavar="MBIT"),
            WAIT,
            DRY_RUN,
            JSON,
        ),
        run=f"{_TRANSFERS}:distribute",
        plan="backend.distribution.plans:plan_distribute",
        tier=Tier.PLAN,
        key="t",
        scope="models",
        available=_needs_model,
    ),
    Action(
        "transfers.list",
        "Transfers under way, and the newest others",
        verb=("transfers", "list"),
        params=(Param("--last", "how many that have ended", type="int", default=30, metavar="N"), JSON),
        run=f"{_TRANSFERS}:list_transfers",
    ),
    Action(
        "transfers.show",
        "Everything known of one transfer: each host, its way, its troubles, its receipt",
        "details",
        verb=("transfers", "show"),
        params=(TRANSFER, JSON),
        run=f"{_TRANSFERS}:show",
        key="d",
        scope="transfers",
        available=_needs_transfer,
    ),
    Action(
        "transfers.pause",
        "End the engines of a transfer for a while; what hosts have stays",
        "pause…",
        verb=("transfers", "pause"),
        params=(TRANSFER, Param("--reason", "why, in words", metavar="TEXT"), WAIT, DRY_RUN, JSON),
        run=f"{_TRANSFERS}:pause",
        plan="backend.distribution.plans:plan_pause",
        tier=Tier.PLAN,
        key="p",
        scope="transfers",
        available=_can_pause,
    ),
    Action(
        "transfers.resume",
        "Let a paused transfer go on",
        "resume…",
        verb=("transfers", "resume"),
        params=(TRANSFER, WAIT, DRY_RUN, JSON),
        run=f"{_TRANSFERS}:resume",
        plan="backend.distribution.plans:plan_resume",
        tier=Tier.PLAN,
        key="u",
        scope="transfers",
        available=_can_resume,
    ),
    Action(
        "transfers.cancel",
        "End a transfer; hosts that have the file keep it",
        "cancel…",
        verb=("transfers", "cancel"),
        params=(TRANSFER, WAIT, DRY_RUN, JSON),
        run=f"{_TRANSFERS}:cancel",
        plan="backend.distribution.plans:plan_cancel",
        tier=Tier.PLAN,
        key="x",
        scope="transfers",
        available=_can_end_transfer,
    ),
    Action(
        "transfers.retry",
        "Try again where a transfer failed, with every transport",
        "retry…",
        verb=("transfers", "retry"),
        params=(TRANSFER, WAIT, DRY_RUN, JSON),
        run=f"{_TRANSFERS}:retry",
        plan="backend.distribution.plans:plan_retry",
        tier=Tier.PLAN,
        key="r",
        scope="transfers",
        available=_can_retry_transfer,
    ),
    Action(
        "transfers.limit",
        "Limit what a transfer, or all of them, may use of this machine's uplink and of hosts' links",
        "limit…",
        verb=("transfers", "limit"),
        params=(
            Param("transfer", "id of a transfer, or all for what they share", metavar="ID|all"),
            Param("--head", "Mbit/s of this machine's uplink; 0 is no limit", type="float", metavar="MBIT"),
            Param("--up", "Mbit/s that each host may give to others", type="float", metavar="MBIT"),
            Param("--down", "Mbit/s that each host may take", type="float", metavar="MBIT"),
            Param("--host", "--up and --down of this host alone", metavar="NAME"),
            WAIT,
            DRY_RUN,
            JSON,
        ),
        run=f"{_TRANSFERS}:limit",
        plan="backend.distribution.limits:plan_limit",
        tier=Tier.PLAN,
        key="l",
        scope="transfers",
    ),
    Action(
        "transfers.verify",
        "Have hosts read what a transfer brought them, from the first byte to the last",
        "verify…",
        verb=("transfers", "verify"),
        params=(TRANSFER, WAIT, DRY_RUN, JSON),
        run=f"{_TRANSFERS}:verify",
        plan="backend.distribution.plans:plan_verify",
        tier=Tier.PLAN,
        key="V",
        scope="transfers",
        available=_can_verify,
    ),
    Action(
        "fleet.drift",
        "Ask hosts what they hold, and tell what differs from their receipts",
        verb=("fleet", "drift"),
        params=(Param("--cached", "ask nobody, print what is stored", type="flag"), JSON),
        run=f"{_TRANSFERS}:drift",
    ),
    Action(
        "tournament",
        "Play models of a config against each other and the anchors, paired for what the games tell",
        verb=("tournament",),
        params=(
            *CONFIG,
            Param("--models", "comma list of files, labels or SHA-256; default all registered", metavar="MODELS"),
            Param("--anchors", "comma list", default="heuristic,ladder:2,ladder:8,ladder:32", metavar="NAMES"),
            Param("--games", "games of the run in all", type="int", default=200, metavar="N"),
            Param("--simulations", "search simulations a move; 0 plays the bare policy", type="int", metavar="N"),
            Param("--run", "id of a run to go on with", metavar="ID"),
            Param("--workers", "processes; default one a core", type="int", metavar="N"),
            SEED,
            JSON,
        ),
        run=f"{_RATINGS}:tournament",
    ),
    # registry
    Action(
        "registry.list",
        "Registered models",
        verb=("registry", "list"),
        params=(
            Param("--stage", "only this stage", metavar="STAGE"),
            Param("--config", "only this config", metavar="KEY"),
            JSON,
        ),
        run=f"{_REGISTRY}:list_models",
    ),
    Action(
        "registry.info",
        "Everything known of one model",
        "details",
        verb=("registry", "info"),
        params=(MODEL, JSON),
        run=f"{_REGISTRY}:info",
        key="d",
        scope="models",
        available=_needs_model,
    ),
    Action(
        "registry.promote",
        "Promote a model to the next stage, if its criteria are met",
        "promote…",
        verb=("registry", "promote"),
        params=(
            MODEL,
            Param("--stage", "staging or production", aliases=("--to",), default="production", metavar="STAGE"),
            Param("--override", "promote against the evidence, for this reason; shown for ever", metavar="REASON"),
            Param("--reason", "why, in words; kept for ever", metavar="TEXT"),
            WAIT,
            DRY_RUN,
            JSON,
        ),
        run=f"{_REGISTRY}:promote",
        plan="backend.registry.promotion:plan_promote",
        key="P",
        scope="models",
        tier=Tier.PLAN,
        available=_can_promote,
    ),
    Action(
        "registry.rollback",
        "Put the production model before this one back, and archive this one",
        "rollback…",
        verb=("registry", "rollback"),
        params=(
            Param("--config", "config key, e.g. hex8_2p", required=True, metavar="KEY"),
            Param("--to", "go back to this model; default the last sound one", metavar="MODEL"),
            Param("--reason", "why, in words; kept for ever", metavar="TEXT"),
            WAIT,
            DRY_RUN,
            JSON,
        ),
        run=f"{_REGISTRY}:rollback",
        plan="backend.registry.rollback:plan_rollback",
        key="B",
        scope="models",
        tier=Tier.PLAN,
        available=_can_roll_back,
    ),
    Action(
        "registry.archive",
        "Move a model into the archive",
        "archive…",
        verb=("registry", "archive"),
        params=(MODEL, REASON, WAIT, DRY_RUN, JSON),
        run=f"{_REGISTRY}:archive",
        plan="backend.registry.archive:plan_archive",
        key="A",
        scope="models",
        tier=Tier.PLAN,
        available=_can_archive,
    ),
    Action(
        "registry.restore",
        "Bring an archived or rejected model back to development",
        "restore…",
        verb=("registry", "restore"),
        params=(MODEL, REASON, WAIT, DRY_RUN, JSON),
        run=f"{_REGISTRY}:restore",
        plan="backend.registry.archive:plan_restore",
        key="R",
        scope="models",
        tier=Tier.PLAN,
        available=_can_restore,
    ),
    Action(
        "registry.reject",
        "Reject a model: it is not to be promoted",
        "reject…",
        verb=("registry", "reject"),
        params=(MODEL, REASON, WAIT, DRY_RUN, JSON),
        run=f"{_REGISTRY}:reject",
        plan="backend.registry.reject:plan_reject",
        key="X",
        scope="models",
        tier=Tier.PLAN,
        available=_can_reject,
    ),
    Action(
        "registry.criteria",
        "What the evidence says of a model, criterion by criterion",
        "criteria",
        verb=("registry", "criteria"),
        params=(MODEL, Param("--stage", "staging or production; default the next", metavar="STAGE"), JSON),
        run=f"{_REGISTRY}:criteria",
        key="c",
        scope="models",
        available=_needs_model,
    ),
    Action(
        "registry.lineage",
        "Where a model comes from and where it went: data, run, model, evaluation, deployment",
        "lineage",
        verb=("registry", "lineage"),
        params=(MODEL, JSON),
        run=f"{_REGISTRY}:lineage",
        key="L",
        scope="models",
        available=_needs_model,
    ),
    Action(
        "models.decisions",
        "History of a model: stages, decisions, overrides with their reasons",
        "history",
        key="H",
        scope="models",
        available=_needs_model,
    ),
    Action(
        "models.mark",
        "Mark a model to compare others with it",
        "mark",
        key="m",
        scope="models",
        available=_needs_model,
    ),
    Action(
        "registry.archive-policy",
        "What the rules of archival say of every model; --apply puts those away that they name",
        "put away…",
        verb=("registry", "archive-policy"),
        params=(
            Param("--config", "only models of this config", metavar="KEY"),
            Param("--apply", "do it: archive, reject and move what the rules name", type="flag"),
            Param("--all", "list also the models that are kept, and why", type="flag"),
            WAIT,
            DRY_RUN,
            JSON,
        ),
        run=f"{_POLICIES}:archive_policy",
        plan="backend.registry.archival:plan_archival",
        key="A",
        scope="policies",
        tier=Tier.PLAN,
    ),
    Action(
        "policies.list",
        "What is archived or promoted without being asked, and who allowed it",
        "policies",
        verb=("policies", "list"),
        params=(JSON,),
        run=f"{_POLICIES}:list_policies",
        key="A",
        scope="pulse",
    ),
    Action(
        "policies.set",
        "Switch a policy, for the whole root or for one config",
        "set…",
        verb=("policies", "set"),
        params=(
            Param("name", "archival or promotion", choices=("archival", "promotion"), metavar="NAME"),
            Param(
                "mode",
                "off, on; dry-run for archival; inherit for a config",
                choices=("off", "dry-run", "on", "inherit"),
                metavar="MODE",
            ),
            Param("--config", "only this config; it then has a mode of its own", metavar="KEY"),
            REASON,
            WAIT,
            DRY_RUN,
            JSON,
        ),
        run=f"{_POLICIES}:set_policy",
        plan="backend.registry.policies:plan_set",
        key="e",
        scope="policies",
        tier=Tier.PLAN,
    ),
    Action(
        "auto-promote",
        "Play a model's gauntlet, judge it, and promote it as far as its criteria pass",
        verb=("auto-promote",),
        params=(
            Param("--model", "label, SHA-256 or the start of one, or the file", required=True, metavar="MODEL"),
            *CONFIG,
            Param("--gauntlet", "play what is missing; without it the games that are there decide", type="flag"),
            Param("--games", "games per opponent at most", type="int", default=100, metavar="N"),
            Param("--simulations", "search simulations a move; 0 plays the bare policy", type="int", metavar="N"),
            Param("--run", "id of a run to go on with; by default the model's own", metavar="ID"),
            Param("--workers", "processes; default one a core", type="int", metavar="N"),
            Param("--dry-run", "say what would be played and how the criteria stand, and change nothing", type="flag"),
            JSON,
        ),
        run="ringrift_console.verbs.auto_promote:auto_promote",
    ),
    Action(
        "registry.history",
        "What was in production when, with every decision",
        verb=("registry", "history"),
        params=(
            Param("--config", "config key, e.g. hex8_2p", required=True, metavar="KEY"),
            Param("--on", "only what was in production at this time, ISO", metavar="DATE"),
            JSON,
        ),
        run=f"{_REGISTRY}:history",
    ),
    Action(
        "registry.compare",
        "Two models side by side; on screen the marked one and this one",
        "compare",
        verb=("registry", "compare"),
        params=(
            Param("first", "label, SHA-256 or the start of one", metavar="A"),
            Param("second", "label, SHA-256 or the start of one", metavar="B"),
            JSON,
        ),
        run=f"{_REGISTRY}:compare",
        key="equals_sign",
        scope="models",
        available=_needs_model,
    ),
    Action(
        "registry.export",
        "Copy a model's file out of the registry, verified, with its checksum",
        verb=("registry", "export"),
        params=(
            MODEL,
            Param("--output", "file to write", type="path", aliases=("-o",), required=True, metavar="F.pth"),
        ),
        run=f"{_REGISTRY}:export",
    ),
    Action(
        "doctor",
        "Examine a root: files, registry, match records and stored ratings; changes nothing",
        verb=("doctor",),
        params=(Param("--config", "only what belongs to this config", metavar="KEY"), JSON),
        run=f"{_REFERENCE}:doctor",
    ),
    Action(
        "adopt",
        "Take the models of another installation in: our own tables beside theirs, known by SHA-256",
        "adopt…",
        verb=("adopt",),
        params=(
            Param("--undo", "take the last adoption back: our tables and rows go, nothing else", type="flag"),
            WAIT,
            DRY_RUN,
            JSON,
        ),
        run=f"{_REFERENCE}:adopt",
        plan="backend.reference.adopt:plan_adopt",
        tier=Tier.PLAN,
    ),
    Action(
        "audit.verify",
        "Check that the registry's audit log is what was written",
        verb=("audit", "verify"),
        params=(JSON,),
        run=f"{_REGISTRY}:verify_audit",
    ),
    # monitoring
    Action(
        "monitor.rollback",
        "Roll back from a regression alarm: config, target and reason are filled in",
        "roll back…",
        verb=("monitor", "rollback"),
        params=(
            ALARM,
            Param("--to", "go back to this model; default the last sound one", metavar="MODEL"),
            Param("--reason", "why, in words; default what the alarm says", metavar="TEXT"),
            WAIT,
            DRY_RUN,
            JSON,
        ),
        run=f"{_MONITOR}:rollback",
        plan="backend.monitoring.plans:plan_alarm_rollback",
        key="B",
        scope="pulse",
        tier=Tier.PLAN,
        available=_needs_alarm,
    ),
    Action(
        "monitor.ack",
        "Acknowledge a regression alarm: it was looked at, and the model stays",
        "acknowledge…",
        verb=("monitor", "ack"),
        params=(ALARM, REASON, WAIT, DRY_RUN, JSON),
        run=f"{_MONITOR}:ack",
        plan="backend.monitoring.plans:plan_ack",
        key="a",
        scope="pulse",
        tier=Tier.PLAN,
        available=_needs_alarm,
    ),
    Action(
        "monitor.set",
        "Switch background matches and hourly checks of production models on or off",
        "monitor…",
        verb=("monitor", "set"),
        params=(
            Param("mode", "on or off", choices=("on", "off"), metavar="MODE"),
            Param("--games-per-day", "background games a config and day", type="int", metavar="N"),
            WAIT,
            DRY_RUN,
            JSON,
        ),
        run=f"{_MONITOR}:set_mode",
        plan="backend.monitoring.plans:plan_set",
        tier=Tier.PLAN,
    ),
    Action(
        "monitor.list",
        "Alarms about production models, newest first",
        verb=("monitor", "list"),
        params=(
            Param("--config", "only this config", metavar="KEY"),
            Param("--all", "those that are acknowledged or closed too", type="flag"),
            JSON,
        ),
        run=f"{_MONITOR}:list_alarms",
    ),
    Action(
        "monitor.show",
        "Everything known of one alarm",
        verb=("monitor", "show"),
        params=(ALARM, JSON),
        run=f"{_MONITOR}:show",
    ),
    Action(
        "monitor.status",
        "What is watched: mode, last look, golden positions and chart of every production model",
        verb=("monitor", "status"),
        params=(JSON,),
        run=f"{_MONITOR}:status",
    ),
    Action(
        "monitor.golden",
        "Compare production models with their fingerprints on the golden positions",
        verb=("monitor", "golden"),
        params=(
            Param(
                "model", "label, SHA-256 or the start of one; none means all in production", repeat="*", metavar="MODEL"
            ),
            Param("--config", "only this config", metavar="KEY"),
            JSON,
        ),
        run=f"{_MONITOR}:golden",
    ),
    Action(
        "monitor.check",
        "Look at production models now, as the monitor does every hour, and raise alarms",
        verb=("monitor", "check"),
        params=(Param("--config", "only this config", metavar="KEY"), JSON),
        run=f"{_MONITOR}:check",
    ),
    # ratings
    Action(
        "ratings.list",
        "Ratings of a config's players, from all of its matches",
        verb=("ratings", "list"),
        params=(*CONFIG, JSON),
        run=f"{_RATINGS}:list_ratings",
    ),
    Action(
        "ratings.history",
        "Ratings after each run of matches, with their error bands",
        verb=("ratings", "history"),
        params=(
            *CONFIG,
            Param("--points", "at most so many points", type="int", default=100, metavar="N"),
            JSON,
        ),
        run=f"{_RATINGS}:history",
    ),
    Action(
        "ratings.verify",
        "Compute all stored ratings again from the matches, and check the matches' hashes",
        verb=("ratings", "verify"),
        params=(
            *CONFIG,
            Param("--replay", "play the matches again too", type="flag"),
            JSON,
        ),
        run=f"{_RATINGS}:verify_ratings",
    ),
    # rules
    Action(
        "rules.replay",
        "Replay recorded games and compare every position",
        verb=("rules", "replay"),
        params=(Param("files", "recordings, .jsonl or .jsonl.gz", type="path", repeat="+", metavar="FILE"),),
        run=f"{_RULES}:replay",
    ),
    Action(
        "rules.bench",
        "Measure the rules engine on one core",
        verb=("rules", "bench"),
        params=(
            Param("--config", "only this config; repeat for several", repeat="append", metavar="KEY"),
            Param("--seconds", "time per config", type="float", default=2.0, metavar="S"),
            JSON,
        ),
        run=f"{_RULES}:bench",
    ),
    Action(
        "rules.play",
        "Play and print one game",
        verb=("rules", "play"),
        params=(
            *CONFIG,
            Param("--players", "player per seat, or one for all", default="random", metavar="NAMES"),
            SEED,
        ),
        run=f"{_RULES}:play",
    ),
    Action(
        "rules.record",
        "Record games in the shared notation",
        verb=("rules", "record"),
        params=(
            *CONFIG,
            Param("--games", "how many", type="int", default=1, metavar="N"),
            Param("--output", "recording to write", type="path", required=True, metavar="F.jsonl.gz"),
            Param("--scattered", "start from made-up positions, rich in rare moves", type="flag"),
            SEED,
        ),
        run=f"{_RULES}:record",
    ),
)

BY_NAME: dict[str, Action] = {action.name: action for action in ACTIONS}


def actions_for(scope: Scope) -> tuple[Action, ...]:
    """Actions with a key on the screens of ``scope``: its own first, then the global ones."""
    own = tuple(action for action in ACTIONS if action.key and action.scope == scope)
    rest = tuple(action for action in ACTIONS if action.key and action.scope == "global")
    return own if scope == "global" else own + rest
