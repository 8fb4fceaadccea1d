"""Policies: what is archived or promoted without being asked, who allowed it, and when."""

from __future__ import annotations

from collections.abc import Iterable

from textual.containers import Vertical
from textual.widget import Widget

from backend.snapshot import PolicyRow, Snapshot
from ringrift_console.actions import BY_NAME
from ringrift_console.widgets.line import Span
from ringrift_console.widgets.table import Column, Table
from screens.base import BaseScreen

_ROLES = {"off": "dim", "dry-run": "info", "on": "warn"}


class PoliciesScreen(BaseScreen):
    """The policies of the root, and of configs that have their own."""

    KIND = "policies"
    TITLE = "Policies"

    def body(self) -> Iterable[Widget]:
        with Vertical(classes="body"):
            yield Table(self._columns(), lambda row: row.key, empty="nothing is known yet", id="policies")

    def on_mount(self) -> None:
        self.policies.focus()

    @property
    def crumb(self) -> str:
        return "Pulse › Policies"

    @property
    def policies(self) -> Table[PolicyRow]:
        return self.query_one("#policies", Table)

    @property
    def main_table(self) -> Table[PolicyRow]:
        return self.policies

    @property
    def current(self) -> PolicyRow | None:
        return self.policies.current if self.is_mounted else None

    @property
    def subject(self) -> str | None:
        return self.current.name if self.current else None

    def show_snapshot(self, snapshot: Snapshot) -> None:
        self.policies.show(snapshot.policies)

    def _columns(self) -> list[Column[PolicyRow]]:
        return [
            Column("POLICY", lambda row: row.name, 10, find=lambda row: row.name, sort=lambda row: row.name),
            Column("WHERE", lambda row: row.config or "all configs", 12, find=lambda row: row.config or "all"),
            Column("MODE", _mode, 8, find=lambda row: row.mode, sort=lambda row: row.mode),
            Column("SET BY", lambda row: row.by or "nobody", 14, flex=1, find=lambda row: row.by),
            Column("AT", lambda row: (self.app.clock.short(row.at), "dim"), 6, align="right"),
            Column("REASON", lambda row: row.reason, 16, flex=2, find=lambda row: row.reason),
        ]

    async def do_open(self) -> None:
        self.do_policies_set()

    def do_policies_set(self) -> None:
        """The form, filled with the policy under the cursor, then the plan."""
        self.run_worker(self._set(), group="dialog", exclusive=False)

    async def _set(self) -> None:
        from screens.dialogs import ask_plan
        from screens.form import FormDialog, choices

        action, row = BY_NAME["policies.set"], self.current
        given = {"name": row.name, "mode": row.mode, "config": row.config} if row else {}
        params = await self.app.push_screen_wait(FormDialog(action, choices(action), given))
        if params is None:
            self.app.say("cancelled, nothing was done", "dim")
            return
        await ask_plan(self.app, action, None, params)

    def do_registry_archive_policy(self) -> None:
        """What the rules name, of the config under the cursor or of all, as a plan."""
        config = self.current.config if self.current else None
        self.app.ask(BY_NAME["registry.archive-policy"], None, {"config": config})

    def do_policies_list(self) -> None:
        self.dismiss()


def _mode(row: PolicyRow) -> Span:
    return row.mode, _ROLES.get(row.mode, "text")
