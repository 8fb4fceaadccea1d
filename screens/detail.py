"""All about one job or one model, on a page of its own."""

from __future__ import annotations

from collections.abc import Iterable

from textual.widget import Widget

from backend.snapshot import Snapshot
from ringrift_console.actions import find_job, find_model
from ringrift_console.widgets.line import Lines
from screens.base import BaseScreen
from screens.facts import Fact, job_facts, model_facts, to_lines
from screens.model_actions import ModelActions


class DetailScreen(BaseScreen):
    """Names and values of one object, found again in every snapshot."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    @property
    def subject(self) -> str | None:
        return self.key

    def facts(self, snapshot: Snapshot) -> list[Fact] | None:
        """The facts, or None when the object is gone."""
        raise NotImplementedError

    def body(self) -> Iterable[Widget]:
        yield Lines(id="facts", classes="body")

    def _scrollable(self) -> Widget | None:
        return self.query_one("#facts", Lines)

    def show_snapshot(self, snapshot: Snapshot) -> None:
        facts = self.facts(snapshot)
        if facts is None:
            facts = [("gone", (f"{self.key} is no longer there", "warn"))]
        self.query_one("#facts", Lines).show(to_lines(facts, self.app.look, self.app.size.width))


class JobDetail(DetailScreen):
    """One job."""

    KIND = "job"

    @property
    def crumb(self) -> str:
        return f"Jobs › {self.key}"

    def facts(self, snapshot: Snapshot) -> list[Fact] | None:
        job = find_job(snapshot, self.key)
        return job_facts(self.app, job) if job else None

    def do_jobs_logs(self) -> None:
        from screens.log import LogScreen

        self.app.push_screen(LogScreen(self.key))

    def do_jobs_show(self) -> None:
        self.dismiss()


class ModelDetail(ModelActions, DetailScreen):
    """One model."""

    KIND = "model"

    @property
    def crumb(self) -> str:
        return f"Models › {self.key}"

    def facts(self, snapshot: Snapshot) -> list[Fact] | None:
        model = find_model(snapshot, self.key)
        return model_facts(self.app, model) if model else None

    def do_registry_info(self) -> None:
        self.dismiss()
