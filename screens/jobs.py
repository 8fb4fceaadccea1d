"""Jobs: all jobs of the root, newest first; on a wide screen the log of the one under the cursor beside them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from textual.containers import Horizontal, Vertical
from textual.widget import Widget

from backend.snapshot import ENDED, JobRow, Snapshot
from ringrift_console.actions import find_job
from ringrift_console.clock import duration
from ringrift_console.widgets.line import Bar, Span
from ringrift_console.widgets.logview import LogView
from ringrift_console.widgets.table import Column, Table
from screens.base import BaseScreen
from screens.cells import UNKNOWN, eta, fraction, progress_text, rate, state_span

_ORDER = ("unknown", "running", "collecting", "placing", "cancelling", "waiting")


class JobsScreen(BaseScreen):
    """The table of jobs."""

    KIND = "jobs"
    TITLE = "Jobs"

    def __init__(self) -> None:
        super().__init__()
        self._snapshot: Snapshot | None = None
        self._jobs: tuple[JobRow, ...] = ()

    def body(self) -> Iterable[Widget]:
        with Horizontal(classes="body"):
            with Vertical(id="list-pane"):
                yield Table(
                    self._columns(), lambda job: job.id, id="jobs",
                    empty="no jobs yet; 1 and then p starts a pipeline",
                )  # fmt: skip
            with Vertical(id="side-pane", classes="wide-only"):
                yield Bar(id="log-title", classes="title")
                yield LogView(id="log")

    def on_mount(self) -> None:
        self.main_table.focus()

    def _columns(self) -> list[Column[JobRow]]:
        look = self.app.look
        return [
            Column(
                "STATE", lambda job: state_span(look, job.state), 12,
                find=lambda job: job.state, sort=lambda job: job.state,
            ),
            Column("JOB", lambda job: job.id, 6, find=lambda job: job.id, sort=lambda job: job.created_at),
            Column("KIND", lambda job: job.kind, 8, find=lambda job: job.kind, sort=lambda job: job.kind),
            Column("CONFIG", lambda job: job.config, 12, find=lambda job: job.config, sort=lambda job: job.config),
            Column(
                "HOST", self._host, 8, flex=1, cut="start",
                find=lambda job: job.host or UNKNOWN, sort=lambda job: job.host,
            ),
            Column("PROGRESS", self._progress, 10, flex=3, find=lambda job: job.why, sort=fraction),
            Column("RATE", rate, 14, from_width=104, align="right"),
            Column("LEFT", eta, 5, from_width=90, align="right"),
            Column("FOR", self._when, 6, align="right", sort=lambda job: job.ended_at or job.started_at),
        ]  # fmt: skip

    def _host(self, job: JobRow) -> Span:
        """The host of the last attempt, marked when it does not answer."""
        if job.host is None:
            return UNKNOWN, "dim"
        return (f"{job.host}{self.app.look.glyphs.attention}", "warn") if job.silent_since else (job.host, "text")

    def _progress(self, job: JobRow) -> Span:
        role = {"failed": "bad", "unknown": "warn", "blocked": "warn"}.get(job.state, "text")
        return progress_text(self.app.look, job, 8, amounts=False), role if job.state not in (
            "waiting",
            "skipped",
        ) else "dim"

    def _when(self, job: JobRow) -> Span:
        """How long it has run or took; how long it has waited when it has not started."""
        now = self.app.clock.now()
        if job.started_at is None:
            waited = (now - job.created_at).total_seconds() if job.state not in ENDED else None
            return duration(waited), "dim"
        if job.state in ENDED and job.ended_at is None:
            return UNKNOWN, "dim"
        return duration(((job.ended_at or now) - job.started_at).total_seconds()), "dim"

    @property
    def main_table(self) -> Table[JobRow]:
        return self.query_one("#jobs", Table)

    @property
    def subject(self) -> str | None:
        current = self.main_table.current if self.is_mounted else None
        return current.id if current else None

    def show_snapshot(self, snapshot: Snapshot) -> None:
        if snapshot is not self._snapshot:
            self._snapshot = snapshot
            newest = sorted(snapshot.jobs, key=lambda job: job.created_at, reverse=True)
            live = [job for job in newest if job.state in _ORDER]
            live.sort(key=lambda job: (_ORDER.index(job.state), job.created_at))
            self._jobs = (*live, *(job for job in newest if job.state not in _ORDER))
        self.main_table.show(self._jobs)
        self._show_log()

    def update_chrome(self) -> None:
        super().update_chrome()
        if self.stands:
            self._show_log()

    def _show_log(self) -> None:
        """Puts the log of the job under the cursor beside the table, where there is room."""
        if not self.wide:
            return
        view = self.query_one("#log", LogView)
        job = find_job(self.app.snapshot, self.subject)
        if job is None:
            view.open(None, "no job is selected")
        else:
            view.open(Path(job.log_path) if job.log_path else None, job.why or "it has not written anything yet")
        self._show_log_title()

    def on_log_view_changed(self) -> None:
        self._show_log_title()

    def _show_log_title(self) -> None:
        view = self.query_one("#log", LogView)
        job = find_job(self.app.snapshot, self.subject)
        text = f" Log of {job.kind} {job.config} {job.id} " if job else " Log "
        self.query_one("#log-title", Bar).show([(text, "title")], [(f" {view.status} ", "dim")], rule=True)

    async def do_open(self) -> None:
        self.do_jobs_logs()

    def do_jobs_logs(self) -> None:
        from screens.log import LogScreen

        if self.subject is not None:
            self.app.push_screen(LogScreen(self.subject))

    def do_jobs_show(self) -> None:
        from screens.detail import JobDetail

        if self.subject is not None:
            self.app.push_screen(JobDetail(self.subject))
