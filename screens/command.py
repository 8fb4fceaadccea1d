"""The ``:`` line: the verbs of the command line, parsed by the command line's own parser."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import shlex
import sys
from typing import TYPE_CHECKING

from backend.configs import CONFIGS
from backend.errors import RingRiftError
from ringrift_console.actions import ACTIONS, BY_NAME, Action
from screens.base import BaseScreen
from screens.form import choices, passed_over

if TYPE_CHECKING:
    from ringrift_console.app import ConsoleApp

OUTPUT_BYTES = 1024 * 1024
RUN_S = 30.0
"""A verb that is run for its output is stopped after this long."""
_WORK: dict[str, str] = {
    **dict.fromkeys(
        ("selfplay", "export", "train", "gauntlet"), "works for long: as part of a pipeline (p), or in a shell"
    ),
    **dict.fromkeys(
        ("supervise", "tournament", "rules.replay", "rules.bench", "rules.play", "rules.record"),
        "works for long: in a shell",
    ),
    "auto-promote": "plays and promotes without a plan to confirm: promote from Models, or in a shell",
}
"""Verbs that are not run for their output, and why."""


def screen_words() -> dict[str, Action]:
    """Actions that exist only on screen, by the word that runs them."""
    return {
        (action.label.lower().replace(" ", "-") or action.name): action
        for action in ACTIONS
        if not action.verb and action.scope == "global"
    }


def completions(app: ConsoleApp, text: str) -> list[str]:
    """Every way in which ``text`` may go on by one word, as whole lines."""
    head, _, last = text.rpartition(" ")
    words = head.split()
    lead = head + " " if head else ""
    candidates: list[str] = []
    for action in ACTIONS:
        verb = list(action.verb)
        if verb and words == verb[: len(words)] and len(words) < len(verb):
            candidates.append(verb[len(words)])
        elif verb and words[: len(verb)] == verb:
            candidates += [param.name for param in action.params if param.name.startswith("-") and last.startswith("-")]
            candidates += _objects(app, action, words)
    if not words:
        candidates += list(screen_words())
    found = sorted({word for word in candidates if word.startswith(last)})
    return [lead + word for word in found]


def _objects(app: ConsoleApp, action: Action, words: list[str]) -> list[str]:
    """Names that fit the word that comes next."""
    before = words[-1] if words else ""
    named = {param.name: param for param in action.params}
    dest = before.lstrip("-") if before in named else ""
    if not dest:
        given = len([word for word in words[len(action.verb) :] if not word.startswith("-")])
        positional = [param.name for param in action.params if not param.name.startswith("-")]
        dest = positional[given] if given < len(positional) else ""
    snapshot = app.snapshot
    return {
        "config": [config.key for config in CONFIGS],
        "host": [host.name for host in snapshot.hosts],
        "job": [job.id for job in snapshot.jobs],
        "model": [model.label for model in snapshot.models],
        "state": sorted({job.state for job in snapshot.jobs}),
        "stage": sorted({model.stage for model in snapshot.models}),
    }.get(dest, [])


def command_line(app: ConsoleApp, text: str = "") -> None:
    """Opens the line on the screen in front."""
    screen = app.screen
    if not isinstance(screen, BaseScreen):
        return

    def finish(line: str | None) -> None:
        if screen.focused is None:
            screen.focus_next()
        if line and line.strip():
            app.run_worker(run_line(app, line.strip()), group="command")

    screen.prompt(":", finish, value=text, complete=lambda value: completions(app, value))


async def run_line(app: ConsoleApp, line: str) -> None:
    """Does what a line says; every mistake is one line of answer."""
    word = screen_words().get(line)
    if word is not None:
        await app.act(word, None)
        return
    try:
        words = shlex.split(line)
        args, printed = parse(words)
    except RingRiftError as error:
        app.say(error.line().replace("ringrift ", ""), "notice_bad")
        return
    except ValueError as error:
        app.say(f"{error}", "notice_bad")
        return
    if args is None:
        await show_text(app, line, printed)
        return
    action: Action = args.action
    if action.plan:
        left = [name for name in passed_over(action) if name in words or any(w.startswith(f"{name}=") for w in words)]
        if left:
            app.say(f"{left[0]} is for a shell: ringrift {line}", "notice_bad")
            return
        values = {choice.dest: getattr(args, choice.dest, None) for choice in choices(action)}
        given = {name: value for name, value in values.items() if value is not None}
        app.ask(action, next(iter(given.values()), None), given)
    elif not await _on_screen(app, action, args):
        if action.name in _WORK:
            app.say(f"{action.name} {_WORK[action.name]}: ringrift {line}", "warn")
        else:
            await _run_verb(app, line, words)


def parse(words: list[str]) -> tuple[argparse.Namespace | None, str]:
    """The parsed line, or None and what the parser printed instead (its help).

    Raises:
        UsageError: the line means nothing.
    """
    from ringrift_console.cli import parse as parse_words

    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            return parse_words(words), ""
    except SystemExit:
        return None, printed.getvalue()


async def _on_screen(app: ConsoleApp, action: Action, args: argparse.Namespace) -> bool:
    """Verbs that have a screen lead there."""
    if action.name in ("jobs.show", "jobs.logs"):
        ids = [job.id for job in app.snapshot.jobs if job.id.startswith(args.job)]
        if len(ids) > 1 and args.job not in ids:
            app.say(f"several jobs begin with {args.job}: {' '.join(ids[:6])}", "notice_bad")
        elif not ids:
            app.say(f"no such job: {args.job}", "notice_bad")
        else:
            await app.go_to("jobs", args.job if args.job in ids else ids[0])
            await app.act(BY_NAME[action.name], app.screen.subject)  # type: ignore[attr-defined]
        return True
    if action.name == "registry.info":
        fits = [m for m in app.snapshot.models if m.label == args.model or m.sha256.startswith(args.model)]
        if len(fits) != 1:
            app.say(f"{'no such model' if not fits else 'several models fit'}: {args.model}", "notice_bad")
        else:
            await app.go_to("models", fits[0].sha256)
            await app.act(action, fits[0].label)
        return True
    if action.name in ("hosts.show", "hosts.shell"):
        if any(host.name == args.host for host in app.snapshot.hosts):
            await app.go_to("hosts", args.host)
            await app.act(action, args.host)
        else:
            app.say(f"no such host: {args.host}", "notice_bad")
        return True
    if action.name == "hosts.list" and not args.json and not args.hosts:
        await app.go("hosts")
        return True
    if action.name in ("jobs.list", "registry.list") and not args.json:
        await app.go("jobs" if action.name == "jobs.list" else "models")
        wanted = {"config": args.config, "state": getattr(args, "state", None), "stage": getattr(args, "stage", None)}
        table = app.screen.main_table  # type: ignore[attr-defined]
        # The models' config column is not shown, but filters look at it.
        table.set_filter(" ".join(f"{name}={value}" for name, value in wanted.items() if value))
        app.screen.update()
        return True
    if action.name == "status" and not args.json:
        await app.go("pulse")
        return True
    return False


async def _run_verb(app: ConsoleApp, line: str, words: list[str]) -> None:
    """Runs a verb in a process of its own and shows what it printed."""
    app.say(f"{line}: running, for {RUN_S:.0f} s at most", "dim")
    command = [sys.executable, "-m", "ringrift_console.cli", *words, "--root", str(app.paths.root)]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdout is not None
    output, ended = b"", True
    try:
        async with asyncio.timeout(RUN_S):
            while (data := await process.stdout.read(65536)) and len(output) < OUTPUT_BYTES:
                output += data
    except TimeoutError:
        ended = False
    if process.returncode is None and (not ended or len(output) >= OUTPUT_BYTES):
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    code = await process.wait()
    text = output.decode("utf-8", "replace")
    if not ended:
        text += f"\n(stopped after {RUN_S:.0f} s; in a shell it runs to its end: ringrift {line})"
    app.say("")
    if code and len(text.splitlines()) <= 1:
        app.say(text.strip().removeprefix("ringrift: ") or f"ended with exit code {code}", "notice_bad")
        return
    await show_text(app, line, text)


async def show_text(app: ConsoleApp, title: str, text: str) -> None:
    """Puts a page of text in front."""
    from screens.text import TextScreen

    await app.push_screen(TextScreen(title, text))
