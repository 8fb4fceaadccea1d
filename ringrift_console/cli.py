"""``ringrift``: every action that has a verb, built from the action registry.

Standard output carries data, standard error the narration; exit codes are those of :class:`backend.errors.Exit`.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import UnsupportedOperation
from typing import Any, NoReturn

from backend.errors import Exit, RingRiftError, UsageError, resource_error
from backend.paths import resolve_root
from ringrift_console import __version__
from ringrift_console.actions import ACTIONS, Action, Param, load


def _whole(text: str) -> int:
    """A whole number that a column of SQLite can hold."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not a whole number: {text!r}") from None
    if not -(2**63) <= number < 2**63:
        raise argparse.ArgumentTypeError(f"too large: {text}")
    return number


_TYPES = {"str": str, "int": _whole, "float": float, "path": str}
_GROUPS = {
    "hosts": "machines",
    "jobs": "jobs",
    "transfers": "files on their way to hosts",
    "fleet": "what lies on hosts",
    "audit": "the registry's log of changes",
    "policies": "what is done without being asked",
    "monitor": "models in production",
    "registry": "models",
    "ratings": "Elo",
    "rules": "the game",
}


class _Parser(argparse.ArgumentParser):
    """Reports a usage error as one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see {self.prog} --help")


def add_param(parser: argparse.ArgumentParser, param: Param) -> None:
    """Adds one parameter of an action to its parser."""
    options: dict[str, Any] = {"help": param.help}
    if param.type == "flag":
        options["action"] = "store_true"
    else:
        options |= {"type": _TYPES[param.type], "default": param.default, "metavar": param.metavar}
        if param.choices:
            options["choices"] = param.choices
        if param.repeat == "append":
            options["action"] = "append"
        elif param.repeat:
            options["nargs"] = param.repeat
    if param.name.startswith("-"):
        names = [param.name, *param.aliases]
        options["dest"] = param.name.lstrip("-").replace("-", "_")
        if param.required:
            options["required"] = True
        parser.add_argument(*names, **options)
    else:
        if param.repeat == "*" or (param.default is not None and not param.repeat):
            options.setdefault("nargs", "?")
        parser.add_argument(param.name, **options)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs. A namespace it returns carries the chosen :class:`Action` as ``action``."""
    common = _Parser(add_help=False)
    common.add_argument("--root", default=argparse.SUPPRESS, metavar="DIR", help="where all data lies (RINGRIFT_ROOT)")
    parser = _Parser(prog="ringrift", description="RingRift models through their whole life.", parents=[common])
    parser.add_argument("--version", action="version", version=f"ringrift {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=_Parser)
    groups: dict[str, Any] = {}
    for action in ACTIONS:
        if not action.verb:
            continue
        place = verbs
        if len(action.verb) == 2:
            group = action.verb[0]
            if group not in groups:
                names = ", ".join(one.verb[1] for one in ACTIONS if one.verb[:1] == (group,))
                outer = verbs.add_parser(group, help=f"{_GROUPS[group]}: {names}")
                groups[group] = outer.add_subparsers(metavar="VERB", required=True, parser_class=_Parser)
            place = groups[group]
        sub = place.add_parser(action.verb[-1], help=action.help, description=action.help, parents=[common])
        for param in action.params:
            add_param(sub, param)
        sub.set_defaults(action=action)
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of an invocation; what stands behind ``--`` is for the verb's repeated words, if it takes any."""
    front, rest = list(argv), []
    if "--" in front:
        cut = front.index("--")
        front, rest = front[:cut], front[cut + 1 :]
        with suppress(UsageError):  # the words may belong to what stands before them
            args = build_parser().parse_args(front)
            if any(param.name == "args" for param in args.action.params):
                args.args = [*(args.args or ()), *rest]
                return args
    return build_parser().parse_args(list(argv))


def _terminate(signum: int, frame: object) -> NoReturn:
    raise SystemExit(128 + signum)


def main(argv: list[str] | None = None) -> int:
    """Runs one verb and returns its exit code."""
    code = int(Exit.DONE)
    try:
        try:
            code = _run(argv)
        finally:  # the flush of an interpreter that ends has no exit code of ours
            if sys.stdout is not None:  # closed by our caller
                sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output went away (`| head`)
        _drop_output()
    except OSError as error:
        full = resource_error(error, str(error.filename or ""))
        if full is None:
            raise
        _drop_output()
        sys.stderr.write(f"ringrift: {full.line()}\n")
        code = int(full.exit_code)
    return code


def _drop_output() -> None:
    """Points standard output at nothing, so that what is left in its buffer fails no second time."""
    with suppress(UnsupportedOperation):  # of a stream that is no file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _run(argv: list[str] | None) -> int:
    try:
        args = parse(sys.argv[1:] if argv is None else argv)
        action: Action = args.action
        paths = resolve_root(getattr(args, "root", None))
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _terminate)
        return int(load(action.run)(args, paths))
    except RingRiftError as error:
        sys.stderr.write(f"ringrift: {error.line()}\n")
        return int(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("ringrift: interrupted\n")
        return int(Exit.INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
