"""The one registry of actions: keys, footer, help, command line, palette, CLI verbs and documentation come from here.

An action that changes something has a ``plan`` function; the console shows the plan in a dialog, the CLI carries it
out (or prints it under ``--dry-run``), and both write the same operation. Nothing here imports a screen or a worker:
handlers and plan functions are named by ``module:function`` and imported when they run.

One module a group of actions; the order below is that of help, palette, ``ringrift --help`` and docs/cli.md.
"""

from ringrift_console.actions.action import Action, Param, Scope, Tier, load
from ringrift_console.actions.elo import ELO
from ringrift_console.actions.hosts import HOSTS
from ringrift_console.actions.jobs import JOBS
from ringrift_console.actions.models import MODELS
from ringrift_console.actions.monitoring import MONITORING
from ringrift_console.actions.params import HOSTS_FILE
from ringrift_console.actions.policies import POLICIES
from ringrift_console.actions.root import ROOT
from ringrift_console.actions.rules import RULES
from ringrift_console.actions.screen import SCREEN
from ringrift_console.actions.subjects import (
    find_alarm,
    find_host,
    find_job,
    find_model,
    find_transfer,
    models_by_name,
)
from ringrift_console.actions.transfers import TRANSFERS
from ringrift_console.actions.work import WORK

__all__ = [
    "ACTIONS",
    "BY_NAME",
    "HOSTS_FILE",
    "Action",
    "Param",
    "Scope",
    "Tier",
    "find_alarm",
    "find_host",
    "find_job",
    "find_model",
    "find_transfer",
    "load",
    "models_by_name",
]

ACTIONS: tuple[Action, ...] = (
    *SCREEN,
    *JOBS,
    *WORK,
    *HOSTS,
    *TRANSFERS,
    *MODELS,
    *POLICIES,
    *ROOT,
    *MONITORING,
    *ELO,
    *RULES,
)

BY_NAME: dict[str, Action] = {action.name: action for action in ACTIONS}
