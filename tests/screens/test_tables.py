"""The table: cursor by key, sorting, filtering, ten thousand rows, and nothing drawn that did not change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from ringrift_console.widgets.filters import Filter


@dataclass(frozen=True)
class Fruit:
    name: str
    weight: int | None = None


def columns() -> list[Any]:
    from ringrift_console.widgets.table import Column

    return [
        Column("NAME", lambda fruit: fruit.name, 10, flex=1, find=lambda fruit: fruit.name, sort=lambda f: f.name),
        Column("WEIGHT", lambda fruit: str(fruit.weight), 6, align="right", sort=lambda fruit: fruit.weight),
    ]


@pytest.fixture
def with_table(build: Callable[..., Any]) -> Callable[..., Any]:
    """Runs a check on a table of its own in a running app."""

    async def run(check: Callable[[Any, Any, Any], Any]) -> None:
        from ringrift_console.widgets.table import Table

        app = build()
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            table = Table(columns(), lambda fruit: fruit.name, id="fruit")
            await app.screen.mount(table, before="#footer")
            await pilot.pause()
            await check(app, pilot, table)

    return run


def shown(table: Any) -> list[str]:
    return [fruit.name for fruit in table.shown]


async def test_the_cursor_stays_with_its_row(with_table: Callable[..., Any]) -> None:
    async def check(app: Any, pilot: Any, table: Any) -> None:
        table.show([Fruit("apple"), Fruit("fig"), Fruit("plum")])
        table.go_to("fig")
        table.show([Fruit("kiwi"), Fruit("apple"), Fruit("plum"), Fruit("fig")])
        assert table.current == Fruit("fig")
        table.show([Fruit("kiwi"), Fruit("apple")])
        assert table.current == Fruit("apple")
        table.show([])
        assert table.current is None

    await with_table(check)


async def test_rows_sort_by_column_with_the_unknown_last(with_table: Callable[..., Any]) -> None:
    async def check(app: Any, pilot: Any, table: Any) -> None:
        table.show([Fruit("plum", 3), Fruit("apple"), Fruit("fig", 1)])
        table.next_sort()
        assert shown(table) == ["apple", "fig", "plum"]
        table.next_sort()
        assert shown(table) == ["fig", "plum", "apple"]
        table.turn_round()
        assert shown(table) == ["plum", "fig", "apple"]
        table.turn_round()
        table.next_sort()
        assert shown(table) == ["plum", "apple", "fig"]

    await with_table(check)


async def test_ten_thousand_rows_are_drawn_only_where_seen(with_table: Callable[..., Any]) -> None:
    async def check(app: Any, pilot: Any, table: Any) -> None:
        drawn: list[Fruit] = []
        column = table.columns[1]
        table.columns = (table.columns[0], replace(column, cell=lambda f: drawn.append(f) or "1"))
        table._placed = table._columns_now()
        table.show([Fruit(f"fruit {n:05}", n) for n in range(10_000)])
        await pilot.pause()
        assert 0 < len({fruit.name for fruit in drawn}) <= table.size.height
        table.move_to(9_999)
        await pilot.pause()
        assert len({fruit.name for fruit in drawn}) <= 2 * table.size.height
        table.set_filter("99")
        assert len(table.shown) == 280
        assert all("99" in name for name in shown(table))

    await with_table(check)


async def test_an_unchanged_table_refreshes_nothing_and_a_cell_only_itself(with_table: Callable[..., Any]) -> None:
    async def check(app: Any, pilot: Any, table: Any) -> None:
        table.show([Fruit("apple", 1), Fruit("fig", 2)])
        await pilot.pause()
        regions: list[Any] = []
        table.refresh = lambda *given, **_: regions.extend(given)
        table.show([Fruit("apple", 1), Fruit("fig", 2)])
        assert regions == []
        table.show([Fruit("apple", 1), Fruit("fig", 3)])
        assert [(region.y, region.width) for region in regions] == [(2, 6)]

    await with_table(check)


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("fig", True),
        ("FIG", True),
        ("fig run", True),
        ("fig done", False),
        ("!done", True),
        ("!run", False),
        ("state=run", True),
        ("st=run", True),
        ("name=run", False),
        ("!state=run", False),
        ("colour=run", False),
        ("", True),
        ("!", False),
    ],
)
def test_a_filter_means_all_its_words(text: str, matches: bool) -> None:
    assert Filter(text).matches({"name": "Fig", "state": "running"}) is matches


@pytest.mark.parametrize("text", ["fig an", "plum !fig", "!ap", "name=pl", "na=p um", "  kiwi"])
async def test_a_filter_typed_letter_by_letter_shows_what_it_shows_at_once(
    with_table: Callable[..., Any], text: str
) -> None:
    async def check(app: Any, pilot: Any, table: Any) -> None:
        fruit = [Fruit(name) for name in ("apple", "fig", "fig and plum", "kiwi", "plum", "pineapple")]
        table.show(fruit)
        for end in [*range(1, len(text) + 1), *range(len(text), -1, -1)]:
            table.set_filter(text[:end])
            fresh = Filter(text[:end])
            assert shown(table) == [one.name for one in fruit if fresh.matches({"name": one.name})], text[:end]
        table.set_filter("fig")
        table.show([*fruit, Fruit("fig pie")])
        table.set_filter("fig p")
        assert shown(table) == ["fig and plum", "fig pie"]

    await with_table(check)
