"""The ``:`` line, the help and the palette: the same actions by name."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest
from textual.worker import WorkerFailed

from backend.snapshot import Snapshot, SupervisorRow
from ringrift_console.widgets.prompt import LineInput
from screens.command import completions, parse
from tests.screens.conftest import make_snapshot


async def type_line(pilot: Any, text: str, *more: str) -> None:
    """Opens the line, puts text into it, and presses what follows (enter, unless told otherwise)."""
    await pilot.pause()
    await pilot.press("colon")
    pilot.app.screen.query_one(LineInput).insert_text_at_cursor(text)
    await pilot.press(*(more or ("enter",)))
    await pilot.pause()
    await pilot.pause()


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("frobnicate", "invalid choice"),
        ("pipeline", "required"),
        ("jobs list --stat", "expected one argument"),
        ("jobs show zz", "no such job: zz"),
        ("registry info nope", "no such model: nope"),
        ("jobs show s", "several jobs begin with s"),
        ("selfplay --config hex8_2p", "works for long: as part of a pipeline"),
        ("tournament --config hex8_2p", "works for long: in a shell"),
        ("auto-promote --model hex8_2p:v1", "without a plan to confirm"),
        ("jobs 'list", "No closing quotation"),
        ("hosts enrol alder-1 --fingerprint SHA256:abc", "--fingerprint is for a shell: ringrift hosts enrol"),
        ("hosts enrol alder-1 --hosts=/tmp/h.yaml", "--hosts is for a shell"),
        ("registry reject hex8_2p:v1 --json", "--json is for a shell"),
    ],
)
async def test_a_line_that_cannot_be_done_is_answered_in_one(
    line: str, answer: str, build: Callable[..., Any], text_of: Any
) -> None:
    app = build()
    async with app.run_test(size=(160, 50)) as pilot:
        await type_line(pilot, line)
        assert answer in text_of(app)[-2]


async def test_verbs_lead_to_their_screens(build: Callable[..., Any], text_of: Any) -> None:
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await type_line(pilot, "jobs list --state failed")
        assert app.current_mode == "jobs"
        assert [job.id for job in app.screen.main_table.shown] == ["s09"]
        await type_line(pilot, "jobs show t12")
        assert "12.5 steps/s" in "\n".join(text_of(app))
        await type_line(pilot, "models")
        assert app.current_mode == "models"
        await type_line(pilot, "registry list --config hex8_2p")
        assert [model.label for model in app.screen.main_table.shown] == ["hex8_2p:v1"]


async def test_what_a_verb_prints_is_shown(build: Callable[..., Any], text_of: Any) -> None:
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await type_line(pilot, "jobs list --json")
        for _ in range(400):
            if "[]" in "\n".join(text_of(app)):
                break
            await pilot.pause(0.05)  # the verb runs, then its page is drawn
        assert len(app.screen_stack) > 1
        assert "[]" in "\n".join(text_of(app))
        await pilot.press("escape")
        await pilot.pause()
        await type_line(pilot, "jobs cancel --help")
        assert "usage: ringrift jobs cancel" in "\n".join(text_of(app))


async def test_tab_completes_verbs_options_and_objects(build: Callable[..., Any]) -> None:
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert completions(app, "pip") == ["pipeline"]
        assert completions(app, "jobs c") == ["jobs cancel"]
        assert completions(app, "pipeline hex8") == ["pipeline hex8_2p", "pipeline hex8_3p", "pipeline hex8_4p"]
        assert completions(app, "jobs cancel t") == ["jobs cancel t12"]
        assert completions(app, "registry info square8_2p:v1") == ["registry info square8_2p:v1"]
        assert "pipeline hex8_2p --epochs" in completions(app, "pipeline hex8_2p --e")
        assert completions(app, "jobs list --config hexagonal_4") == ["jobs list --config hexagonal_4p"]
        await type_line(pilot, "jobs ca", "tab", "t", "tab")
        assert app.screen.query_one(LineInput).value == "jobs cancel t12 "


async def test_help_runs_what_is_picked_and_says_why_not(build: Callable[..., Any], text_of: Any) -> None:
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await pilot.press("question_mark", *"newest", "space", *"last", "enter")
        for _ in range(3):
            await pilot.pause()
        assert text_of(app)[-2].startswith(" :events")
        await pilot.press("escape")
        await pilot.pause()
        await pilot.press("question_mark", *"into", "space", *"the", "space", *"archive", "enter")
        await pilot.pause()
        assert "on Models" in "\n".join(text_of(app))
        await pilot.press("escape")
        await pilot.pause()
        await pilot.press("question_mark", *"utc", "enter")
        for _ in range(3):
            await pilot.pause()
        assert app.clock.mode == "age"


async def test_the_palette_leads_to_objects(build: Callable[..., Any]) -> None:
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await pilot.press("ctrl+p", *"s09", "enter")
        for _ in range(4):
            await pilot.pause()
        assert app.current_mode == "jobs"
        assert app.screen.subject == "s09"


async def test_a_supervisor_that_cannot_be_started_is_told_and_the_console_goes_on(
    build: Callable[..., Any], text_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ringrift_console import intents

    async def forbidden(paths: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/data/console/supervisor.log")

    monkeypatch.setattr(intents, "start_supervisor", forbidden)
    app = build(source=make_snapshot(supervisor=SupervisorRow(False)))
    async with app.run_test(size=(160, 50)) as pilot:
        await pilot.pause()
        await pilot.press("S")
        for _ in range(3):
            await pilot.pause()
        assert "permission is denied: /data/console/supervisor.log" in text_of(app)[-2]


async def test_a_time_in_a_shell_is_no_lag(build: Callable[..., Any]) -> None:
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        app.lag_ms = 600_000.0  # as a look after ten minutes in a shell counts it
        app.app_resume_signal.publish(app)
        for _ in range(200):
            await pilot.pause(0.05)
            if app.lag_ms != 600_000.0:
                break
        assert app.lag_ms < 60_000  # it fades by a tenth a look otherwise


async def test_an_error_of_ours_while_reading_ends_the_console_and_is_not_swallowed(build: Callable[..., Any]) -> None:
    app = build()

    async def stumble() -> Snapshot:
        raise ZeroDivisionError("a bug")

    with pytest.raises(WorkerFailed, match="a bug"):
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            app.reader = stumble
            for _ in range(100):
                await pilot.pause(0.05)


def test_the_line_is_parsed_by_the_parser_of_the_command_line() -> None:
    args, printed = parse(["jobs", "submit", "selfplay", "hex8_2p", "--", "--games", "3"])
    assert args is not None and args.args == ["--games", "3"] and printed == ""
    args, printed = parse(["pipeline", "hex8_2p", "--epochs", "3"])
    assert args is not None
    assert (args.config, args.epochs, printed) == ("hex8_2p", 3, "")
    args, printed = parse(["--version"])
    assert args is None
    assert printed.startswith("ringrift ")
