"""Kinds of jobs out of ``recipes.toml``: every mistake has its line, and what is right runs like any other job."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from backend.errors import SettingsError, UsageError
from backend.jobs.recipes import load_recipes, recipe_of
from backend.jobs.recipes.custom import filled
from backend.jobs.recipes.toml_file import KEYS, TAKEN, line_of, parse_recipes
from backend.jobs.submit import apply_submit, plan_submit
from backend.paths import Paths
from backend.plans import Plan
from backend.snapshot import JobRow
from tests.lab.two_hosts import Bed, two_hosts

BENCH = r"""
# what the bench says
[bench]
argv = ["{python}", "-c", "{code}", "{board}", "{players}", "{games}"]
inputs = ["in/{config}.txt"]
outputs = ["out/{config}_{games}.json"]
params = {games = 3, code = ""}
progress = 'game (?P<done>\d+) of (?P<total>\d+)'
result = ['score (?P<score>[\d.]+)']
unit = "games"
repeatable = true
"""

CODE = r"""
import os, sys
board, players, games = sys.argv[1], sys.argv[2], int(sys.argv[3])
text = open(f"in/{board}_{players}p.txt").read()
for game in range(games):
    print(f"game {game + 1} of {games}")
os.makedirs("out", exist_ok=True)
open(f"out/{board}_{players}p_{games}.json", "w").write(text + "!")
print("score 0.75")
"""


@pytest.mark.parametrize(
    ("change", "line", "what"),
    [
        (("[bench]", "[bench"), 3, "not TOML"),
        (("[bench]", "[Bench]"), 3, "'Bench' is no name for a kind"),
        (("[bench]", "[train]"), 3, "'train' is a kind of its own already"),
        (("[bench]", "[promote]"), 3, "'promote' is a kind of its own already"),
        (("repeatable", "repeteable"), 11, "a recipe has no 'repeteable'"),
        (("repeatable = true", "repeatable = 1"), 11, "'repeatable' of 'bench' must be true or false"),
        (("repeatable = true", 'runtime = "slurm"'), 11, "there is no runtime 'slurm'"),
        (("repeatable = true", "unit = 3"), 11, "not TOML"),
        (('unit = "games"', "unit = 3"), 10, "'unit' of 'bench' must be text"),
        (('["{python}", "-c"', '["{python} -c", "-c"'), 4, "{python} has to be a word of its own"),
        (('"{board}"', '"{bored}"'), 4, "'argv' knows no {bored}"),
        (('"{board}"', '"{board"'), 4, "a brace that is no placeholder"),
        (('argv = ["{python}"', 'argv = [3, "{python}"'), 4, "'argv' of 'bench' must be a list of texts"),
        (("in/{config}.txt", "../{config}.txt"), 5, "'../{config}.txt' does not lie in the root"),
        (("in/{config}.txt", "/etc/passwd"), 5, "'/etc/passwd' does not lie in the root"),
        (("out/{config}_", "{root}/{config}_"), 6, "'outputs' knows no {root}"),
        (("games = 3", "Games = 3"), 7, "'Games' is no name for a param"),
        (("games = 3", "root = 3"), 7, "'root' is no name for a param"),
        (("games = 3", "games = []"), 7, "the default of 'games' must be text or a number"),
        (("(?P<done>", "(?P<gone>"), 8, "'progress' needs the group done"),
        (("(?P<done>", "((?P<done>"), 8, "'progress' is no regular expression"),
        (("(?P<score>", "("), 9, "'result' needs named groups"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(change: tuple[str, str], line: int, what: str) -> None:
    assert change[0] in BENCH
    with pytest.raises(SettingsError) as caught:
        parse_recipes(BENCH.replace(*change, 1), "recipes.toml")
    assert f"recipes.toml line {line}" in caught.value.line()
    assert what in caught.value.line()
    assert "\n" not in caught.value.line()


def test_other_tables_do_not_confuse_the_lines() -> None:
    text = '[one]\nargv = ["a"]\n\n[two]\nargv = ["b"]\n[two.params]\nn = 1\nBad = 2\n\n[three]\nbad = 1\n'
    with pytest.raises(SettingsError, match="line 8"):
        parse_recipes(text, "r")
    with pytest.raises(SettingsError, match=r"'three' has no argv|a recipe has no 'bad'.*") as caught:
        parse_recipes(text.replace("Bad", "good"), "r")
    assert "line 11" in caught.value.line()
    assert line_of('one = {argv = ["a"], bad = 1}\n', "one", "bad") == 1
    with pytest.raises(SettingsError, match="line 1"):
        parse_recipes("bench = 3\n", "r")
    with pytest.raises(SettingsError, match=r"line 1.*argv"):
        parse_recipes("[bench]\n", "r")


def test_unknown_keys_are_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_recipes(BENCH + 'shell = "rm -rf /"\n', "r")
    assert " ".join(KEYS) in caught.value.hint
    assert {"selfplay", "export", "train", "gauntlet", "command", "promote", "training"} <= TAKEN
    assert load_recipes(tmp_path / "none.toml") == {}
    (tmp_path / "bad.toml").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="cannot read"):
        load_recipes(tmp_path / "bad.toml")


def test_the_example_of_the_documentation_is_a_recipe() -> None:
    text = (Path(__file__).parents[2] / "docs/jobs.md").read_text()
    (found,) = parse_recipes(text.split("```toml\n")[1].split("```")[0], "docs").values()
    params = {"recipe": found.to_json(), "words": found.words({}), "runtime": found.runtime}
    recipe = recipe_of(found.kind, params)
    assert [out.name for out in recipe.outputs("hex8_2p", params)] == ["books/hex8_2p.json"]
    assert recipe.argv(Paths(Path("/r")), "hex8_2p", params)[-2:] == ["--out", "/r/books/hex8_2p.json"]


def test_a_word_stays_a_word_whatever_is_put_into_it() -> None:
    assert filled("a {x} {{y}}", {"x": "b; $(c) {z}"}) == "a b; $(c) {z} {y}"
    made = parse_recipes('[one]\nargv = ["prog", "--name={name}"]\nparams.name = "n"\n', "r")["one"]
    params = {"recipe": made.to_json(), "words": made.words({"name": "'; rm -rf / #"})}
    argv = recipe_of("one", params).argv(Paths(Path("/r")), "hex8_2p", params)
    assert argv == [sys.executable, "-m", "backend.jobs.reader", "prog", "--name='; rm -rf / #"]


@pytest.fixture
async def bed(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bed]:
    async with two_hosts(paths, tmp_path / "far", monkeypatch) as made:
        (paths.root / "recipes.toml").write_text(BENCH)
        (paths.root / "in").mkdir()
        (paths.root / "in/hex8_2p.txt").write_text("text")
        yield made


async def submit(bed: Bed, *words: str, **more: Any) -> str:
    plan = await plan_submit(bed.paths, kind="bench", config="hex8_2p", args=list(words), **more)
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    result = await apply_submit(bed.paths, again, bed.store.bound(await bed.store.submit(plan)))
    return str(result["jobs"][0])


@pytest.mark.parametrize("host", ["far", "local"])
async def test_it_runs_like_any_other_job(bed: Bed, host: str) -> None:
    name = await submit(bed, "--code", CODE, host=host)
    (bed.paths.root / "recipes.toml").write_text("")  # the job goes on as it was confirmed
    row: JobRow = await bed.until(name, "done", "failed")
    assert (row.state, row.host, row.kind) == ("done", host, "bench"), row.why
    assert row.result["score"] == 0.75 and row.repeatable
    assert row.progress is not None and (row.progress.done, row.progress.total, row.progress.unit) == (3, 3, "games")
    assert (bed.paths.root / "out/hex8_2p_3.json").read_text() == "text!"
    assert row.argv[-3:] == ("hex8", "2", "3")


async def test_an_exit_code_of_0_is_not_enough(bed: Bed) -> None:
    row = await bed.until(await submit(bed, "--code", "print('score 1')", host="far"), "done", "failed")
    assert row.state == "failed"
    assert "left no out/hex8_2p_3.json; it said last: score 1" in row.why
    row = await bed.until(await submit(bed, "--code", "print('nothing')", host="far"), "done", "failed")
    assert "told no score" in row.why


async def test_words_that_it_does_not_take_and_words_that_it_needs(bed: Bed) -> None:
    for words, what in (
        (["--games", "3"], "bench jobs need --code"),
        (["--code", "x", "--speed", "3"], "no such option"),
        (["--code"], "lacks its value"),
        (["--code", "x", "--games", "../../x"], "does not lie in the root"),
    ):
        with pytest.raises(UsageError, match=what):
            await plan_submit(bed.paths, kind="bench", config="hex8_2p", args=words)
    with pytest.raises(UsageError, match="no such kind of job: bunch") as caught:
        await plan_submit(bed.paths, kind="bunch", config="hex8_2p")
    assert "bench" in caught.value.hint
    (bed.paths.root / "recipes.toml").write_text("[bench]\nargs = 1\n")
    with pytest.raises(SettingsError, match="line 2"):
        await plan_submit(bed.paths, kind="export", config="hex8_2p")


async def test_it_is_placed_by_the_same_rules(bed: Bed) -> None:
    bed.paths.hosts_yaml.write_text(
        "hosts:\n  local: {excluded_workloads: [bench]}\n  far: {ssh_host: 127.0.0.1, runtime: ai-service}\n"
    )
    plan = await plan_submit(bed.paths, kind="bench", config="hex8_2p", args=["--code", "x"])
    assert plan.warnings == (
        "no host takes it as things are (local: takes no bench jobs; far: its runtime is ai-service, the job is for "
        "builtin)",
    )
    name = await submit(bed, "--code", "x")
    while not (row := await bed.row(name)).waits:
        await bed.keeper.tick()
    assert dict(row.waits) == {
        "takes no bench jobs": ("local",), "its runtime is ai-service, the job is for builtin": ("far",),
    }  # fmt: skip
