"""The log of one job, over the whole screen."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from textual.widget import Widget

from backend.snapshot import Snapshot
from ringrift_console.actions import find_job
from ringrift_console.widgets.line import Bar
from ringrift_console.widgets.logview import LogView
from screens.base import BaseScreen
from screens.cells import eta, progress_text, state_span


class LogScreen(BaseScreen):
    """Follows the log; the line above it says how the job stands."""

    KIND = "log"

    def __init__(self, job_id: str) -> None:
        super().__init__()
        self.job_id = job_id

    @property
    def crumb(self) -> str:
        return f"Jobs › {self.job_id} › log"

    @property
    def subject(self) -> str | None:
        return self.job_id

    @property
    def view(self) -> LogView:
        return self.query_one("#log", LogView)

    def body(self) -> Iterable[Widget]:
        yield Bar(id="log-title", classes="title")
        yield LogView(id="log")

    def on_mount(self) -> None:
        self.view.focus()

    def show_snapshot(self, snapshot: Snapshot) -> None:
        job = find_job(snapshot, self.job_id)
        if job is None:
            if self.app.have_read:
                self.view.open(None, f"job {self.job_id} is no longer there")
        else:
            self.view.open(Path(job.log_path) if job.log_path else None, job.why or "it has not written anything yet")
        self._show_title()

    def on_log_view_changed(self) -> None:
        self._show_title()

    def _show_title(self) -> None:
        job, look = find_job(self.app.snapshot, self.job_id), self.app.look
        status = f" {self.view.status} "
        if job is None:
            self.query_one("#log-title", Bar).show([(f" {self.job_id} ", "title")], [(status, "dim")])
            return
        left = f"  {eta(job)} left" if job.state == "running" and eta(job) != "-" else ""
        self.query_one("#log-title", Bar).show(
            [
                (f" {job.kind} {job.config} ", "title"),
                state_span(look, job.state),
                (f"  {progress_text(look, job, 8)}{left}", "text"),
            ],
            [(status, "dim")],
        )

    # Keys

    def do_log_follow(self) -> None:
        self.view.toggle_follow()

    def do_log_wrap(self) -> None:
        self.view.toggle_wrap()

    def do_log_times(self) -> None:
        self.view.next_stamps()
        self.say(f"times of the lines: {self.view.stamps}")

    def do_log_left(self) -> None:
        self.view.sideways(-1)

    def do_log_right(self) -> None:
        self.view.sideways(1)

    async def do_log_next(self) -> None:
        await self.view.next_match(1)

    async def do_log_previous(self) -> None:
        await self.view.next_match(-1)

    async def do_row_first(self) -> None:  # type: ignore[override]
        await self.view.first()

    def do_row_last(self) -> None:
        self.view.last()

    def do_log_search(self) -> None:
        def finish(text: str | None) -> None:
            self.view.focus()
            if text is not None:
                self.run_worker(partial(self.view.search, text), group="search", exclusive=True)

        self.prompt("/", finish, value="")

    def do_back(self) -> None:
        """Escape: first the notice, then the search, then the log itself."""
        if self.notice:
            self.say("")
        elif self.view.pattern is not None:
            self.run_worker(partial(self.view.search, ""), group="search", exclusive=True)
        else:
            self.dismiss()
