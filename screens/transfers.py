"""Transfers: files on their way to hosts, each host's part live, and who feeds whom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from textual.containers import Horizontal, Vertical
from textual.timer import Timer
from textual.widget import Widget

from backend.snapshot import DeliveryRow, Snapshot, TransferRow
from backend.text import size_text
from ringrift_console.actions import BY_NAME, find_transfer
from ringrift_console.clock import duration
from ringrift_console.look import Look
from ringrift_console.widgets.line import Bar, Lines, Span
from ringrift_console.widgets.table import Column, Table
from screens import transfer_cells as cells
from screens.base import BaseScreen
from screens.cells import UNKNOWN, state_span
from screens.detail import DetailScreen
from screens.facts import Fact
from screens.transfer_swarm import swarm_lines

PICTURE_S = 1.0
"""Hosts tell once a second what they have and from whom."""


class Picture(Lines, can_focus=True):
    """The swarm; tab leads to it, and it scrolls where there are more hosts than lines."""


class TransfersScreen(BaseScreen):
    """Above the transfers, below the hosts of the one under the cursor; on a wide screen its swarm beside them."""

    KIND = "transfers"
    TITLE = "Transfers"

    def __init__(self) -> None:
        super().__init__()
        self._seen: tuple[TransferRow, ...] | None = None
        self._rows: tuple[TransferRow, ...] = ()
        self._drawn: tuple[TransferRow | None, Lines, int] | None = None
        self._drawing_later: Timer | None = None
        self._due = False
        self.swarm = False

    def body(self) -> Iterable[Widget]:
        with Horizontal(classes="body"):
            with Vertical(id="list-pane"):
                yield Table(
                    transfer_columns(self.app.look, self._when), lambda row: row.id, id="transfers",
                    empty="no transfers yet; t on a model (4) brings it to hosts",
                )  # fmt: skip
                yield Bar(id="hosts-title", classes="title")
                yield Table(
                    delivery_columns(self.app.look, self._bytes), lambda row: row.host, id="deliveries", empty=""
                )
                yield Picture(id="narrow-swarm")
            with Vertical(id="side-pane", classes="wide-only"):
                yield Bar(id="swarm-title", classes="title")
                yield Picture(id="swarm")

    def on_mount(self) -> None:
        self.main_table.focus()
        self.query_one("#narrow-swarm").display = False

    @property
    def main_table(self) -> Table[TransferRow]:
        return self.query_one("#transfers", Table)

    @property
    def host_table(self) -> Table[DeliveryRow]:
        return self.query_one("#deliveries", Table)

    @property
    def subject(self) -> str | None:
        current = self.main_table.current if self.is_mounted else None
        return current.id if current else None

    def show_snapshot(self, snapshot: Snapshot) -> None:
        if snapshot.transfers is not self._seen:
            self._seen = snapshot.transfers
            newest = snapshot.transfers[::-1]
            going = [row for row in newest if row.state not in cells.ENDED]
            self._rows = (*going, *(row for row in newest if row.state in cells.ENDED))
        self.main_table.show(self._rows)  # what follows from the row under the cursor comes with update_chrome

    def update_chrome(self) -> None:
        super().update_chrome()
        if self.stands:
            self._show_chosen()

    def _show_chosen(self) -> None:
        row = self.main_table.current
        self.host_table.show(row.hosts if row else ())
        title = self.query_one("#hosts-title", Bar)
        if row is None:
            title.show([(" Hosts ", "title")], rule=True)
        else:
            limit = cells.limit_text(row, self.app.snapshot, self.app.clock.now())
            held = cells.limits_text(row.limits) if row.ended_at is None else ""
            told = ((f" {held},", "warn"), (f" {limit} ", "dim")) if held else ((f" {limit} ", "dim"),)
            title.show([(f" {row.id} {row.title} ", "title")], told, rule=True)
        if self.wide:
            gives = ((f" {text} ", "dim"),) if row is not None and (text := cells.uplink_text(row)) else ()
            self.query_one("#swarm-title", Bar).show([(" Who feeds whom ", "title")], gives, rule=True)
            self._draw_swarm(row, self.query_one("#swarm", Lines))
        elif self.swarm:
            self._draw_swarm(row, self.query_one("#narrow-swarm", Lines))

    def _draw_swarm(self, row: TransferRow | None, lines: Lines) -> None:
        """The picture: most of the work of this screen, so only when it changed, and once a second while it goes on."""
        width = max(30, lines.size.width)
        before, *place = self._drawn or (None, None, None)
        if self._drawn is not None and place == [lines, width]:
            if before is row:
                return
            goes_on = row is not None and before is not None and row.id == before.id and row.ended_at is None
            if goes_on and not self._due:
                self._drawing_later = self._drawing_later or self.set_timer(PICTURE_S, self._draw_now)
                return
        self._due = False
        self._drawn = row, lines, width
        lines.show(() if row is None else swarm_lines(row, self.app.look, width))

    def _draw_now(self) -> None:
        self._drawing_later, self._due = None, True
        self._show_chosen()
        self._due = False

    def _bytes(self) -> int:
        row = self.main_table.current
        return row.size if row else 0

    def _when(self, row: TransferRow) -> Span:
        """How long it has been under way, or took."""
        end = row.ended_at or row.live_at or self.app.clock.now()
        return duration((end - (row.started_at or row.created_at)).total_seconds()), "dim"

    def do_transfers_swarm(self) -> None:
        """On a narrow screen: the hosts as a table, or as a picture."""
        if self.wide:
            self.say("the picture stands on the right")
            return
        self.swarm = not self.swarm
        self.query_one("#narrow-swarm").display = self.swarm
        self.host_table.display = not self.swarm
        (self.query_one("#narrow-swarm", Lines) if self.swarm else self.host_table).refresh()
        self.main_table.focus()
        self.call_after_refresh(self.update)

    def do_transfers_limit(self) -> None:
        """The form with the limits of the transfer or host under the cursor, or of all, as they are; then the plan."""
        host = self.host_table.current if self.table is self.host_table else None
        work = ask_limits(self, self.main_table.current, host.host if host is not None else None)
        self.run_worker(work, group="dialog", exclusive=False)

    async def do_open(self) -> None:
        """Enter on a transfer goes to its hosts, Enter on a host to all about its part."""
        if self.table is self.main_table and not self.swarm:
            self.host_table.focus()
        else:
            self.do_transfers_show()

    def do_transfers_show(self) -> None:
        row, host = self.main_table.current, self.host_table.current
        if row is not None:
            name = host.host if host is not None and self.table is self.host_table else None
            self.app.push_screen(TransferDetail(row.id, name))


class TransferDetail(DetailScreen):
    """One transfer, or one host's part of it."""

    KIND = "transfer"

    def __init__(self, key: str, host: str | None = None) -> None:
        super().__init__(key)
        self.host = host

    @property
    def crumb(self) -> str:
        return f"Transfers › {self.key}" + (f" › {self.host}" if self.host else "")

    def facts(self, snapshot: Snapshot) -> list[Fact] | None:
        row = find_transfer(snapshot, self.key)
        if row is None:
            return None
        if self.host is None:
            return transfer_facts(self, row)
        host = next((one for one in row.hosts if one.host == self.host), None)
        return delivery_facts(self, row, host) if host else None

    def do_transfers_show(self) -> None:
        self.dismiss()

    def do_transfers_limit(self) -> None:
        row = find_transfer(self.app.snapshot, self.key)
        self.run_worker(ask_limits(self, row, self.host), group="dialog", exclusive=False)


async def ask_limits(screen: BaseScreen, row: TransferRow | None, host: str | None) -> None:
    """Asks for limits; a field that was emptied takes its limit away."""
    from screens.dialogs import ask_plan
    from screens.form import FormDialog, choices

    app, action = screen.app, BY_NAME["transfers.limit"]
    going = row if row is not None and row.ended_at is None else None
    now = going.asked if going else app.snapshot.limits
    up, down = now.of(host) if host else (now.up, now.down)
    values = (("head", None if host else now.head), ("up", up), ("down", down))
    set_ = {name: f"{value:g}" for name, value in values if value}
    given = {"transfer": going.id if going else "all", **set_, **({"host": host} if host else {})}
    params = await app.push_screen_wait(FormDialog(action, choices(action), given))
    if params is None:
        app.say("cancelled, nothing was done", "dim")
        return
    if (params["transfer"], params.get("host")) == (given["transfer"], host):
        params |= {name: 0.0 for name in set_ if name not in params}
    await ask_plan(app, action, None, params)


def transfer_columns(look: Look, when: Callable[[TransferRow], Span]) -> list[Column[TransferRow]]:
    return [
        Column("ID", lambda row: row.id, 4, find=lambda row: row.id, sort=lambda row: row.created_at),
        Column("FILE", _file, 12, flex=2, cut="start", find=lambda row: f"{row.name} {row.title}", sort=_file),
        Column("STATE", lambda row: cells.transfer_state(look, row), 12, find=cells.state_of, sort=cells.state_of),
        Column("LIVE", cells.live_text, 7, align="right", sort=lambda row: row.live),
        Column("DONE", lambda row: cells.percent(_part(row)), 4, align="right", sort=_part),
        Column("RATE", lambda row: cells.rate_text(sum(host.rate for host in row.hosts)), 9, align="right"),
        Column("LEFT", lambda row: duration(cells.left(row)), 5, align="right", sort=cells.left),
        Column("VIA", lambda row: (cells.routes_text(row) or UNKNOWN, "dim"), 8, flex=1, find=cells.routes_text),
        Column("COPIES", lambda row: f"{row.copies:.2f}", 6, from_width=92, align="right", sort=lambda row: row.copies),
        Column("FOR", when, 6, align="right", from_width=92),
        Column("SIZE", lambda row: size_text(row.size), 8, from_width=110, align="right", sort=lambda row: row.size),
    ]


def _file(row: TransferRow) -> str:
    """What is sent, as operators call it; all files lie in the same few folders."""
    return row.model or row.name.rpartition("/")[2]


def delivery_columns(look: Look, size: Callable[[], int]) -> list[Column[DeliveryRow]]:
    """``size``: bytes of the file that these hosts are to have."""

    def part(host: DeliveryRow) -> float | None:
        return cells.fraction(host.have, size())

    def progress(host: DeliveryRow) -> Span:
        if host.state in ("failed", "blocked") and host.failure:
            return host.failure, "bad" if host.state == "failed" else "warn"
        share = part(host)
        full, empty = look.glyphs.bar(share, 10)
        return f"{full}{empty} {cells.percent(share):>4}", "good" if host.live else "text"

    return [
        Column("HOST", lambda host: host.host, 10, flex=2, find=lambda host: host.host, sort=lambda host: host.host),
        Column("STATE", lambda host: state_span(look, host.state), 12, find=lambda host: host.state,
               sort=lambda host: host.state),
        Column("PROGRESS", progress, 15, flex=3, find=lambda host: host.failure, sort=part),
        Column("RATE", lambda host: cells.rate_text(host.rate), 9, align="right", sort=lambda host: host.rate),
        Column("LEFT", lambda host: duration(cells.host_left(host, size())), 5, align="right"),
        Column("VIA", lambda host: _via(look, host), 8, find=lambda host: host.transport,
               sort=lambda host: host.transport),
        Column("PEERS", lambda host: str(len(host.peers)) if host.peers else UNKNOWN, 5, align="right",
               sort=lambda host: len(host.peers)),
        Column("PROVED", lambda host: cells.verified(look, host), 11, from_width=92, sort=lambda host: host.live),
    ]  # fmt: skip


def _part(row: TransferRow) -> float | None:
    return cells.fraction(cells.have(row), row.size * len(row.hosts))


def _via(look: Look, host: DeliveryRow) -> Span:
    """The transport; marked when it is not the first of the route, for then something was amiss."""
    if not host.transport:
        return UNKNOWN, "dim"
    fell = host.routes and host.transport != host.routes[0]
    return (f"{host.transport}{look.glyphs.attention}", "warn") if fell else (host.transport, "text")


def transfer_facts(screen: BaseScreen, row: TransferRow) -> list[Fact]:
    """Everything known of a transfer."""
    clock, look = screen.app.clock, screen.app.look
    word, role = cells.transfer_state(look, row)
    live, live_role = cells.live_text(row)
    facts: list[Fact] = [
        ("state", (word, role)),
        *([("paused", (row.paused or "no reason was given", "warn"))] if row.paused is not None else []),
        ("live on", (f"{live} hosts", live_role)),
        ("file", row.name),
        ("model", row.model or UNKNOWN),
        ("from", row.path),
        ("size", f"{size_text(row.size)} ({row.size} bytes)"),
        ("sha256", row.sha256),
        ("because", row.cause or UNKNOWN),
        ("asked by", row.by or UNKNOWN),
        ("asked for", clock.long(row.created_at)),
        ("last host", clock.long(row.live_at)),
        ("speed", cells.limit_text(row, screen.app.snapshot, clock.now())),
        ("head gave", f"{row.copies:.2f} copies, {size_text(row.head_sent)}"),
        ("limits", cells.limit_facts(row.asked)),
        *([("now", f"this machine {cells.mbit_text(row.limits.head)}")] if row.limits.head != row.asked.head else []),
        ("all share", cells.limit_facts(screen.app.snapshot.limits)),
    ]
    troubled = [host for host in row.hosts if host.failure or host.fault]
    facts += [("Troubles", None)] if troubled else []
    facts += [
        (host.host, (host.failure or host.fault, "bad" if host.state == "failed" else "warn")) for host in troubled
    ]
    facts += [("Hosts", None)]
    for host in row.hosts:
        word, role = state_span(look, host.state)
        share = cells.percent(cells.fraction(host.have, row.size))
        facts.append((host.host, (f"{word}  {share}  {host.transport}", role)))
    return facts


def delivery_facts(screen: BaseScreen, row: TransferRow, host: DeliveryRow) -> list[Fact]:
    """Everything known of one host's part: its way, its troubles, its receipt."""
    clock, look = screen.app.clock, screen.app.look
    word, role = state_span(look, host.state)
    facts: list[Fact] = [
        ("state", (word, role)),
        *([("trouble", (host.failure, "bad" if host.state == "failed" else "warn"))] if host.failure else []),
        *([("fault", (host.fault, "warn"))] if host.fault else []),
        *(("no way to", (f"{who}: {why}", "warn")) for who, why in host.unreached),
        ("file", row.name),
        ("has", f"{size_text(host.have)} of {size_text(row.size)}"),
        ("rate", cells.rate_text(host.rate)),
        ("gave others", size_text(host.sent)),
        *([("limits", (limit, "warn"))] if (limit := cells.host_limit(row, host.host)) else []),
        ("transport", host.transport or UNKNOWN),
        ("route", " → ".join(host.routes) or UNKNOWN),
        ("starts", str(host.attempts)),
        ("place", f"{host.position}" + (", a GPU host" if host.wave == 0 else "")),
        ("begun", clock.long(host.started_at)),
        ("live since", clock.long(host.live_at)),
    ]
    if host.history:
        facts += [("Its way", None)]
        facts += [(clock.short(at), f"{way}: {what}" if way else what) for at, way, what in host.history]
    if host.receipt:
        facts += [("Receipt", None), *_receipt(host.receipt)]
    return facts


def _receipt(receipt: dict[str, object], prefix: str = "") -> Sequence[Fact]:
    facts: list[Fact] = []
    for name, value in receipt.items():
        if isinstance(value, dict):
            facts += _receipt(value, f"{prefix}{name} ")
        else:
            facts.append((f"{prefix}{name}".replace("_", " "), str(value)))
    return facts
