"""The console: shows what the root holds, writes what the operator confirmed, and does no work itself.

It may be killed at any moment: all it knows it reads again, and whatever runs, runs elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

from textual.app import App
from textual.theme import Theme
from textual.worker import Worker, WorkerError

from backend.configs import CONFIGS
from backend.paths import Paths
from backend.snapshot import ConfigRow, Snapshot
from backend.thresholds import thresholds
from ringrift_console.actions import Action, Tier, load
from ringrift_console.clock import Clock
from ringrift_console.driver import ConsoleDriver
from ringrift_console.glyphs import Glyphs, choose_glyphs
from ringrift_console.keymap import SCREENS
from ringrift_console.look import Look, ThemeName
from ringrift_console.painter import Painted, Painter
from ringrift_console.reader import Reader as BackendReader
from ringrift_console.settings import Settings
from ringrift_console.troubles import TROUBLES, trouble_line
from ringrift_console.writer import reset_terminal

Reader = Callable[[], Awaitable[Snapshot]]

EXIT_WITHIN_S = 1.5
"""After a hang-up or a request to end, the process is gone after this long whatever hangs."""
_SSH_HZ = 1.0


def first_snapshot(paths: Paths, clock: Clock) -> Snapshot:
    """What is shown before the first read: the configs, with everything else unknown."""
    rows = tuple(ConfigRow(config.key, None, thresholds(config).ready_games, "unknown") for config in CONFIGS)
    return Snapshot(root=str(paths.root), revision=0, taken_at=clock.now(), configs=rows)


def _screen(module: str, name: str) -> Callable[[], Any]:
    """Makes a screen when its mode is first used, so that start-up imports only the first one."""
    return lambda: load(f"{module}:{name}")()


class ConsoleApp(App[int], inherit_bindings=False):
    """The Textual app.

    Args:
        paths: the root that is shown.
        settings: of the operator.
        theme: colours.
        glyphs: drawing characters; by default what the terminal can show.
        reader: reads a snapshot; by default the backend's.
        clock: the time.
    """

    CSS_PATH: ClassVar[Path] = Path(__file__).parent / "styles" / "console.tcss"
    TITLE = "RingRift Console"
    ENABLE_COMMAND_PALETTE = False
    DEFAULT_MODE = "pulse"
    MODES: ClassVar[dict[str, Callable[[], Any]]] = {
        "pulse": _screen("screens.pulse", "PulseScreen"),
        "hosts": _screen("screens.hosts", "HostsScreen"),
        "jobs": _screen("screens.jobs", "JobsScreen"),
        "models": _screen("screens.models", "ModelsScreen"),
        "elo": _screen("screens.elo", "EloScreen"),
        "transfers": _screen("screens.transfers", "TransfersScreen"),
    }
    HORIZONTAL_BREAKPOINTS: ClassVar[list[tuple[int, str]] | None] = [(0, "-narrow"), (120, "-wide")]

    def __init__(
        self,
        paths: Paths,
        settings: Settings | None = None,
        *,
        theme: ThemeName = "dark",
        glyphs: Glyphs | None = None,
        reader: Reader | None = None,
        clock: Clock | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.look = Look(theme, glyphs or choose_glyphs())
        super().__init__(driver_class=ConsoleDriver, ansi_color=self.look.native)
        if theme == "mono" and not self.no_color:
            from textual.filter import NoColor

            self.no_color = True
            self._filters.append(NoColor())
        self.paths = paths
        self.settings = settings or Settings()
        self.keymap = self.settings.keys
        self.clock = clock or Clock(mode=self.settings.time)  # type: ignore[arg-type]
        self.monotonic = monotonic
        self.reader = reader or BackendReader(paths)
        self.over_ssh = bool(os.environ.get("SSH_CONNECTION"))
        self.snapshot = first_snapshot(paths, self.clock)
        self.have_read = False
        self.marked: str | None = None  # the model that others are compared with, by SHA-256
        self.trouble = ""
        self.lag_ms = 0.0
        self._resumed = False
        self.painter = Painter()
        self._read_at = monotonic()
        self._tables: dict[str, dict[str, Action]] = {}
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self._pump: Worker[None] | None = None
        self._set_theme()

    def _set_theme(self) -> None:
        colours = self.look.colours
        if self.look.native:
            self.theme = "ansi-dark"
            return
        self.register_theme(
            Theme(
                "console", primary=colours["info"], foreground=colours["text"], background=colours["back"],
                surface=colours["back"], panel=colours["raised"], warning=colours["warn"], error=colours["bad"],
                success=colours["good"], accent=colours["accent"], dark=self.look.theme == "dark",
                variables={"border": colours["rail"]},
            )
        )  # fmt: skip
        self.theme = "console"

    # Start and end

    async def on_mount(self) -> None:
        self._event_loop = asyncio.get_running_loop()
        self.set_class(self.look.glyphs.ascii, "-ascii")
        if not self.is_headless:
            for number in (signal.SIGHUP, signal.SIGTERM):
                self._event_loop.add_signal_handler(number, self._end, 128 + number)
        self.app_resume_signal.subscribe(self, self._note_resumed)
        # The first frame goes out before anything is read or imported for reading.
        self.call_after_refresh(self._start_pump)

    def _note_resumed(self, app: App[Any]) -> None:
        self._resumed = True

    def _start_pump(self) -> None:
        self._pump = self.run_worker(self._pump_snapshots(), group="pump")  # an error of ours ends the console, told

    async def on_unmount(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
            with contextlib.suppress(WorkerError):
                await self._pump.wait()

    def call_on_loop(self, function: Callable[[], object]) -> None:
        """Runs ``function`` on the event loop, from any thread; does nothing once the loop has ended."""
        if self._event_loop is not None:
            with contextlib.suppress(RuntimeError):
                self._event_loop.call_soon_threadsafe(function)

    def terminal_lost(self) -> None:
        """The terminal is gone: nobody can see or type anything any more."""
        self._end(128 + signal.SIGHUP)

    def _end(self, code: int) -> None:
        descriptor = self._driver._file.fileno() if isinstance(self._driver, ConsoleDriver) else 2

        def give_up() -> None:
            reset_terminal(descriptor)
            os._exit(code)

        watchdog = threading.Timer(EXIT_WITHIN_S, give_up)
        watchdog.daemon = True
        watchdog.start()
        self.exit(code, return_code=code)

    # Reading

    @property
    def period(self) -> float:
        """Seconds between two looks at the state."""
        hz = self.settings.refresh_hz
        return 1 / (min(hz, _SSH_HZ) if self.over_ssh else hz)

    @property
    def stale_s(self) -> float:
        """Age of what is shown, in seconds."""
        return self.monotonic() - self._read_at

    async def _pump_snapshots(self) -> None:
        while True:
            await self.look_again()
            before = time.monotonic()
            await asyncio.sleep(self.period)
            late = (time.monotonic() - before - self.period) * 1000
            self.lag_ms = max(late, self.lag_ms * 0.9)  # the worst of late, fading within seconds
            if self._resumed:  # a shell, or ctrl+z, was in front: nothing was late
                self.lag_ms, self._resumed = 0.0, False

    async def look_again(self) -> None:
        """Reads the state once and shows it."""
        try:
            snapshot = await self.reader()
        except TROUBLES as error:
            self.trouble = trouble_line(error, str(self.paths.root))
        else:
            self.trouble = ""
            self._read_at = self.monotonic()
            self.have_read = True
            if _content(snapshot) != _content(self.snapshot):
                self.snapshot = snapshot
        if not self.is_running:
            return
        for screen in self.screen_stack:
            update = getattr(screen, "update", None)
            if update is not None and screen.is_mounted:
                update()

    # Drawing

    @property
    def link_slow(self) -> bool:
        output = self._driver.output if isinstance(self._driver, ConsoleDriver) else None
        return output is not None and output.backlog > 0 and output.left_out > 0

    def _display(self, screen: Any, renderable: Any) -> None:
        output = self._driver.output if isinstance(self._driver, ConsoleDriver) else None
        if output is not None and output.congested:
            return
        super()._display(screen, Painted(self.painter, renderable) if renderable is not None else None)

    def redraw(self) -> None:
        """Draws the whole screen again."""
        self.painter.forget()
        if self.screen_stack:
            self.screen.refresh(layout=True)

    # Doing

    def key_table(self, kind: str) -> dict[str, Action]:
        """Actions by key on a kind of screen."""
        if kind not in self._tables:
            self._tables[kind] = self.keymap.table(SCREENS[kind])
        return self._tables[kind]

    def say(self, text: str, role: str = "notice") -> None:
        """One line on the screen that is in front."""
        say = getattr(self.screen, "say", None)
        if say is not None:
            say(text, role)

    async def act(self, action: Action, subject: str | None = None) -> None:
        """Does an action, or says why it cannot be done now."""
        reason = action.available(self.snapshot, subject)
        if reason is not None:
            self.say(f"{action.label.rstrip('…') or action.name}: {reason}", "warn")
            return
        handler = getattr(self.screen, "handler", lambda _: None)(action)
        handler = handler or getattr(self, "do_" + action.name.replace(".", "_"), None)
        if handler is not None:
            done = handler()
            if done is not None:
                await done
        elif action.plan:
            self.ask(action, subject)
        else:
            self.say(f"{action.name}: only on the command line (ringrift {' '.join(action.verb)})", "warn")

    def ask(self, action: Action, subject: str | None = None, params: dict[str, Any] | None = None) -> None:
        """Leads a planned action through its form (when there is something to choose) and its plan dialog."""
        from screens.dialogs import ask_plan

        if action.tier is Tier.READ:
            raise ValueError(f"{action.name} plans but has no tier")
        self.run_worker(ask_plan(self, action, subject, params), group="dialog", exclusive=False)

    async def go(self, mode: str) -> None:
        """Brings one of the numbered screens to the front."""
        if self.current_mode != mode:
            await self.switch_mode(mode)

    async def go_to(self, mode: str, key: str) -> None:
        """Brings a numbered screen to the front with the cursor on one of its rows."""
        await self.go(mode)
        while len(self.screen_stack) > 1:
            self.pop_screen()
        screen = self.screen
        table = getattr(screen, "main_table", None)
        if table is None:
            return
        screen.update()  # type: ignore[attr-defined]
        if not table.go_to(key):
            table.set_filter("")
            table.go_to(key)
        table.focus()
        screen.update()  # type: ignore[attr-defined]

    async def do_go_pulse(self) -> None:
        await self.go("pulse")

    async def do_go_hosts(self) -> None:
        await self.go("hosts")

    async def do_go_transfers(self) -> None:
        await self.go("transfers")

    async def do_go_jobs(self) -> None:
        await self.go("jobs")

    async def do_go_models(self) -> None:
        await self.go("models")

    async def do_go_elo(self) -> None:
        await self.go("elo")

    def do_quit(self) -> None:
        self.exit(0)

    def do_time(self) -> None:
        self.clock.next_mode()
        self.say(f"times: {self.clock.mode}")
        for screen in self.screen_stack:
            screen.refresh()
            screen.update()

    def do_redraw(self) -> None:
        if self._driver is not None:
            self._driver.write("\x1b[2J")
        self.redraw()

    def do_suspend(self) -> None:
        self.action_suspend_process()

    def do_supervisor_start(self) -> None:
        self.run_worker(self._start_supervisor(), group="intent")

    async def _start_supervisor(self) -> None:
        from ringrift_console.intents import start_supervisor

        if self.snapshot.supervisor.alive:
            self.say("the supervisor is up")
            return
        try:
            pid = await start_supervisor(self.paths)
        except TROUBLES as error:
            self.say(trouble_line(error, str(self.paths.root)), "notice_bad")
        else:
            self.say(f"supervisor started, process {pid}")

    def do_help(self) -> None:
        from screens.picker import help_dialog

        self.run_worker(help_dialog(self), group="dialog")

    def do_palette(self) -> None:
        from screens.picker import palette_dialog

        self.run_worker(palette_dialog(self), group="dialog")

    def do_command(self) -> None:
        from screens.command import command_line

        command_line(self)


def _content(snapshot: Snapshot) -> tuple[Any, ...]:
    """All of a snapshot but the moment it was taken."""
    return tuple(getattr(snapshot, one.name) for one in fields(snapshot) if one.compare and one.name != "taken_at")
