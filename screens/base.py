"""What all screens share: header, body, notice, footer, and keys that come from the action registry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Input

from backend.snapshot import Snapshot
from ringrift_console.actions import Action
from ringrift_console.widgets.footer import footer_spans
from ringrift_console.widgets.header import header_spans
from ringrift_console.widgets.line import Bar, Span
from ringrift_console.widgets.logview import LogView
from ringrift_console.widgets.prompt import Prompt
from ringrift_console.widgets.table import Table

if TYPE_CHECKING:
    from ringrift_console.app import ConsoleApp

SMALLEST = (60, 15)


class BaseScreen(Screen[None]):
    """One screen. A subclass gives ``body`` and ``show_snapshot``, and a ``do_...`` method for each action of its own:
    ``jobs.logs`` is done by ``do_jobs_logs``. What a screen does not do, the app does."""

    app: ConsoleApp
    KIND: ClassVar[str] = "text"
    TITLE: ClassVar[str] = ""
    HORIZONTAL_BREAKPOINTS: ClassVar[list[tuple[int, str]] | None] = [(0, "-narrow"), (120, "-wide")]

    def __init__(self) -> None:
        super().__init__()
        self.notice: tuple[Span, ...] = ()

    def compose(self) -> ComposeResult:
        yield Bar(id="header", base="header")
        yield from self.body()
        yield Bar(id="notice")
        yield Bar(id="footer", base="footer")

    def body(self) -> Iterable[Widget]:
        raise NotImplementedError

    def show_snapshot(self, snapshot: Snapshot) -> None:
        """Shows what was read; called about twice a second, so only differences may cost anything."""
        raise NotImplementedError

    @property
    def crumb(self) -> str:
        """What the header calls this screen."""
        return self.TITLE or ""

    @property
    def subject(self) -> str | None:
        """What the actions of this screen would act on."""
        return None

    @property
    def wide(self) -> bool:
        return self.app.size.width >= 120

    @property
    def stands(self) -> bool:
        """Whether there is anything to draw on: not before it is composed, nor once the console is being left."""
        return self.is_mounted and bool(self.children)

    # Showing

    def on_mount(self) -> None:
        self.update()

    def on_screen_resume(self) -> None:
        self.update()

    def on_resize(self, event: events.Resize) -> None:
        small = event.size.width < SMALLEST[0] or event.size.height < SMALLEST[1]
        self.set_class(small, "-tiny")
        self.call_after_refresh(self.update)

    def update(self) -> None:
        """Brings everything on the screen up to what is known now."""
        if not self.stands:
            return
        self.show_snapshot(self.app.snapshot)
        self.update_chrome()

    def update_chrome(self) -> None:
        """Header, notice and footer."""
        if not self.stands:
            return
        width = self.app.size.width
        self.query_one("#header", Bar).show(*header_spans(self.app, self.crumb, width))
        table = self.table
        notice = self.notice
        right: tuple[Span, ...] = ()
        if table is not None and table.filter.active:
            right = ((f" /{table.filter.text} ", "chip"), (f"{len(table.shown)} of {len(table.items)} shown ", "dim"))
        if self.has_class("-tiny"):
            notice = ((f" at least {SMALLEST[0]}x{SMALLEST[1]} is needed", "warn"),)
        self.query_one("#notice", Bar).show(notice, right)
        self.query_one("#footer", Bar).show(footer_spans(self.app, self.KIND, self.subject, width))

    def say(self, text: str, role: str = "notice") -> None:
        """Puts one line above the footer; it stays until the next one or the next key."""
        self.notice = ((" " + text, role),) if text else ()
        self.update_chrome()

    # Keys

    @property
    def table(self) -> Table[Any] | None:
        """The table that has the focus."""
        return self.focused if isinstance(self.focused, Table) else None

    @property
    def main_table(self) -> Table[Any] | None:
        """The table that this screen is about."""
        return None

    @property
    def log_view(self) -> LogView | None:
        return self.focused if isinstance(self.focused, LogView) else None

    async def on_key(self, event: events.Key) -> None:
        if isinstance(self.focused, Input):
            return  # what it does not take goes on to its own bindings
        event.stop()
        event.prevent_default()
        if not self.is_active:  # typed before what is in front now was drawn: a dialog is answered by who has seen it
            front = self.app.screen
            if isinstance(front, BaseScreen):
                await front.on_key(event)
            return
        table = self.app.key_table(self.KIND)
        action = table.get(event.key) or table.get(event.character or "")
        if self.notice and action is not None and action.name != "back":
            self.say("")
        if action is not None:
            await self.app.act(action, self.subject)
        elif event.key == "ctrl+c":
            leave, cancel = self.app.keymap.hint("quit"), self.app.keymap.hint("jobs.cancel")
            self.say(f"{leave} leaves the console; jobs go on. {cancel} on the Jobs screen cancels one")

    def handler(self, action: Action) -> Callable[[], Awaitable[None] | None] | None:
        """The method that does ``action`` here."""
        return getattr(self, "do_" + action.name.replace(".", "_").replace("-", "_"), None)

    def on_table_moved(self, message: Table.Moved) -> None:
        self.update_chrome()

    async def on_table_opened(self, message: Table.Opened) -> None:
        await self.do_open()

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        self.update_chrome()

    async def do_open(self) -> None:
        """Enter on a row."""

    # Moving about

    def _scrollable(self) -> Widget | None:
        return self.focused

    def _move(self, rows: int) -> None:
        target = self._scrollable()
        move = getattr(target, "move", None)
        if move is not None:
            move(rows)

    @property
    def _page(self) -> int:
        return getattr(self._scrollable(), "page", 1)

    def do_row_down(self) -> None:
        self._move(1)

    def do_row_up(self) -> None:
        self._move(-1)

    def do_page_down(self) -> None:
        self._move(self._page)

    def do_page_up(self) -> None:
        self._move(-self._page)

    def do_row_first(self) -> None:
        self._move(-1_000_000_000)

    def do_row_last(self) -> None:
        self._move(1_000_000_000)

    def do_pane_next(self) -> None:
        self.focus_next()

    def do_pane_previous(self) -> None:
        self.focus_previous()

    def do_sort(self) -> None:
        if self.table is not None:
            self.table.next_sort()

    def do_sort_reverse(self) -> None:
        if self.table is not None:
            self.table.turn_round()

    # Filter and back

    def do_filter(self) -> None:
        table = self.table
        if table is None:
            return

        def finish(text: str | None) -> None:
            table.set_filter(text or "")
            table.focus()
            self.update_chrome()

        def change(text: str) -> None:
            table.set_filter(text)
            self.update_chrome()

        self.prompt("/", finish, change=change, value=table.filter.text)
        self.call_after_refresh(table.prepare_filter)

    def do_back(self) -> None:
        """Escape: first the notice, then the filter, then the screen itself where it was pushed."""
        if self.notice:
            self.say("")
        elif self.table is not None and self.table.filter.active:
            self.table.set_filter("")
            self.update_chrome()
        elif len(self.app.screen_stack) > 1:
            self.dismiss()

    def prompt(
        self,
        label: str,
        finish: Callable[[str | None], None],
        *,
        change: Callable[[str], None] | None = None,
        value: str = "",
        complete: Callable[[str], Sequence[str]] | None = None,
    ) -> None:
        """Asks for one line of text in the row of the notice; ``finish`` gets None on escape."""
        if self.query(Prompt):
            return
        self.mount(Prompt(label, finish, change=change, value=value, complete=complete), before="#footer")
        self.query_one("#notice").display = False

    def close_prompt(self) -> None:
        self.query_one("#notice").display = True
        self.update_chrome()
