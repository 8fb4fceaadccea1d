"""The Elo screen: what it draws of stored ratings, what the cursor says, and that it never reads on the event loop."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest

from backend.evaluation.rating_history import current
from backend.evaluation.rating_view import RatingReader, head_to_head
from backend.paths import Paths
from tests.screens.conftest import PATIENCE_S, press, until
from tests.screens.evidence import CONFIG, play, register


@pytest.fixture
def played(paths: Paths, snapshot: Any) -> Paths:
    """Both models of square8_2p have played; the first is in production."""
    models = sorted((m for m in snapshot.models if m.config == CONFIG), key=lambda m: m.version)
    register(paths, models)
    play(paths, models)
    return paths


def page(app: Any, text_of: Any) -> str:
    return "\n".join(text_of(app))


async def test_the_chart_shows_both_models_the_thresholds_and_the_promotion(
    played: Paths, build: Callable[..., Any], text_of: Any
) -> None:
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "5")
        await until(pilot, lambda: "P(v2 better than champion v1)" in page(app, text_of))
        text = page(app, text_of)
        for wanted in ("1650", "1500", "1400", "v2", "4 rated, 150 games", "P(v2 better than champion v1)"):
            assert wanted in text


async def test_the_cursor_reads_what_the_fit_gave(played: Paths, build: Callable[..., Any], text_of: Any) -> None:
    found = current(played, CONFIG)
    one, champion = (
        next(n for n, player in enumerate(found.players) if player.startswith(sha)) for sha in (f"{2:02x}", f"{1:02x}")
    )
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "5")
        await until(pilot, lambda: "better than champion" in page(app, text_of))
        text = page(app, text_of)
        low, high = found.band(one)
        assert f"v2 {found.elo[one]:.0f} ({low:.0f}–{high:.0f})  {found.games[one]} games" in text
        assert f"champion v1) {found.superiority(one, champion):.2f}" in text
        await press(pilot, "h")
        assert "v2 has no rating yet" in page(app, text_of)  # it had not played after the first run
        await press(pilot, "l", "b")
        assert "it is the champion" in page(app, text_of)


async def test_ratings_that_cannot_be_read_again_are_told_beside_what_was_read(
    played: Paths, build: Callable[..., Any], text_of: Any
) -> None:
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "5")
        await until(pilot, lambda: "better than champion" in page(app, text_of))
        for file in played.elo_db.parent.glob(played.elo_db.name + "*"):
            file.unlink()
        played.elo_db.write_bytes(b"no database at all" * 100)
        app.screen.read_what_changed(everything=False)
        await until(pilot, lambda: "cannot be read again" in page(app, text_of))
        assert "1650" in page(app, text_of)


async def test_head_to_head_counts_the_games(played: Paths, build: Callable[..., Any], text_of: Any) -> None:
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "5", "v", "v")
        await until(pilot, lambda: "80%/30" in page(app, text_of))
        text = page(app, text_of)
        assert "60%/30" in text and "40%/30" in text  # v2 against v1, and the other way round
        await until(pilot, lambda: "v2 won 24 of 30 against heuristic:1" in page(app, text_of))
        await press(pilot, "l", "l")
        assert "v2 won 18 of 30 against v1" in page(app, text_of)
        assert "better)" in page(app, text_of)


async def test_all_configs_are_charts_and_enter_opens_one(
    played: Paths, build: Callable[..., Any], text_of: Any
) -> None:
    app = build()
    async with app.run_test(size=(160, 50)) as pilot:
        await press(pilot, "5", "v")
        await until(pilot, lambda: page(app, text_of).count("no games yet") == 11)
        assert re.search(r"square8_2p +v2 1\d\d\d", page(app, text_of))
        await press(pilot, "l", "j", "enter")
        assert app.screen.config == "square19_4p" and app.screen.view == "chart"
        await until(pilot, lambda: "no rated games of square19_4p" in page(app, text_of))
        await press(pilot, "left_square_bracket")
        assert app.screen.config == "square19_3p"


async def test_new_games_are_told_and_then_drawn(
    played: Paths, build: Callable[..., Any], text_of: Any, snapshot: Any
) -> None:
    from backend.evaluation.rating_history import publish
    from backend.evaluation.records import Records
    from tests.screens.evidence import match

    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "5")
        await until(pilot, lambda: "150 games" in page(app, text_of))
        with Records.open(played) as records:
            rows = [(str(n), match(n, snapshot.models[0], "heuristic:1", True)) for n in range(500, 507)]
            records.add("more", rows)
        app.screen.update()
        await until(pilot, lambda: "7 games since" in page(app, text_of))
        await asyncio.to_thread(publish, played, CONFIG)
        app.screen.update()
        await until(pilot, lambda: "157 games" in page(app, text_of) and "since" not in page(app, text_of))


async def test_matches_without_stored_ratings_are_rated_on_a_thread(
    played: Paths, build: Callable[..., Any], text_of: Any
) -> None:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(played.elo_db)) as db, db:
        db.execute("DELETE FROM rating_snapshots")
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "5")
        await until(pilot, lambda: "computed now" in page(app, text_of))
        assert "P(v2 better than champion v1)" in page(app, text_of)


async def test_while_a_thread_reads_the_screen_says_so_and_keys_work(
    played: Paths, build: Callable[..., Any], text_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, seen = threading.Event(), []
    whole = RatingReader.view

    def slow(self: RatingReader, *args: Any) -> Any:
        seen.append(threading.current_thread() is threading.main_thread())
        assert go.wait(PATIENCE_S)
        return whole(self, *args)

    monkeypatch.setattr(RatingReader, "view", slow)
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        try:
            await press(pilot, "5")
            await until(pilot, lambda: "reading…" in page(app, text_of))
            await press(pilot, "question_mark")
            assert "Keys and actions" in page(app, text_of)
            await press(pilot, "escape")
        finally:
            go.set()
        await until(pilot, lambda: "150 games" in page(app, text_of))
    assert seen and not any(seen)


async def test_a_damaged_snapshot_is_named(played: Paths, build: Callable[..., Any], text_of: Any) -> None:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(played.elo_db)) as db, db:
        db.execute("UPDATE rating_snapshots SET ratings = x'00'")
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "5")
        await until(pilot, lambda: "a stored rating snapshot is damaged" in page(app, text_of))


async def test_the_filter_and_the_list_choose_the_model(played: Paths, build: Callable[..., Any], text_of: Any) -> None:
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "5")
        await until(pilot, lambda: "150 games" in page(app, text_of))
        await press(pilot, "v", "v", "v", "slash", "v", "1", "enter")
        assert app.screen.subject == "square8_2p:v1"
        assert "pinned" not in page(app, text_of)
        await press(pilot, "d")
        assert "sha256" in page(app, text_of)


def test_head_to_head_of_three_players_counts_the_candidate_only(played: Paths, snapshot: Any) -> None:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(played.elo_db)) as db, db:
        db.execute("UPDATE match_games SET config = 'square8_3p'")
    models = {m.version: f"{m.sha256}:s32" for m in snapshot.models if m.config == CONFIG}
    met = head_to_head(played, "square8_3p", [*models.values(), "heuristic:1"])
    assert met[models[2], models[1]].won == 18
    assert (models[1], models[2]) not in met and ("heuristic:1", models[2]) not in met


def test_a_view_is_read_again_only_when_the_file_has_changed(played: Paths) -> None:
    reader = RatingReader(played)
    first = reader.view(CONFIG)
    assert reader.view(CONFIG) is first
    assert [point.games for point in first.points] == [60, 150]
    (newest,) = reader.view(CONFIG, 1).points
    assert newest is first.points[-1]
