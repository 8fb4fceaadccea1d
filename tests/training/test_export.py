"""From recorded games to a dataset and back: what is in it, what is refused, and that it can be trusted."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.configs import Config, parse_config
from backend.errors import (
    LockedError,
    NoEvidenceError,
    NotFoundError,
    RingRiftError,
    SchemaError,
    UntrustedError,
    UnverifiedError,
)
from backend.locks import FileLock
from backend.paths import Paths
from backend.rules import load
from backend.rules.layout import M_SWAP, PLAYER
from backend.training import dataset as dataset_module
from backend.training.dataset import load_dataset, read_metadata, verify_dataset, write_dataset
from backend.training.encoder import box_of
from backend.training.export import covers, discover, export, split_games
from backend.training.game_record import GameRecord
from backend.training.games_db import iterate_games
from backend.training.npz import read_npz, write_npz
from backend.training.packing import pack_states
from backend.training.samples import game_samples

Make = Callable[..., GameRecord]
Save = Callable[[Path, Config, list[GameRecord]], None]


def test_every_sample_is_a_position_of_its_game(played: Paths, square8: Config) -> None:
    dataset = load_dataset(played.dataset(square8), config=square8)
    arrays, rules, box = dataset.arrays, load(square8), box_of("square8")
    games = {game.game_id.encode(): game for game in iterate_games(played.games_db(square8))}
    assert dataset.samples > 300 and len(games) == len(arrays["game_ids"]) == 12
    offsets = arrays["policy_offsets"]
    for row in range(0, dataset.samples, 37):
        game = games[arrays["game_ids"][arrays["game_index"][row]]]
        state = rules.new(ring_supply=game.ring_supply)
        ply = arrays["move_numbers"][row]
        for move in game.moves[:ply]:
            rules.apply(state, move)
        packed = np.empty((1, 9, 64), dtype=np.uint8)
        scalars = np.empty((1, arrays["globals"].shape[1]), dtype=np.float32)
        pack_states(state[None], np.zeros(1, dtype=np.int64), rules.tables, box.places, packed, scalars)
        assert np.array_equal(packed.reshape(9, 8, 8), arrays["features"][row])
        assert np.array_equal(scalars[0], arrays["globals"][row])
        assert arrays["players"][row] == state[PLAYER] and arrays["winners"][row] == game.winner
        assert arrays["values"][row] == (1.0 if game.winner == state[PLAYER] else -1.0)
        assert arrays["total_game_moves"][row] == len(game.moves)
        moves = arrays["policy_indices"][offsets[row] : offsets[row + 1]]
        target = arrays["policy_values"][offsets[row] : offsets[row + 1]]
        assert np.array_equal(moves, rules.legal(state)) and len(moves) > 1
        assert target.sum() == 1.0 and moves[target.argmax()] == game.moves[ply]


def test_games_are_split_as_a_whole_and_the_split_is_stable(played: Paths, square8: Config) -> None:
    dataset = load_dataset(played.dataset(square8))
    held = set(dataset.arrays["game_index"][dataset.rows(1)].tolist())
    trained = set(dataset.arrays["game_index"][dataset.rows(0)].tolist())
    assert held and trained and not held & trained
    names = [f"game {i}" for i in range(1000)]
    few, many = split_games(names[:500], 0.1), split_games(names, 0.1)
    assert np.array_equal(few, many[:500]) and 60 < many.sum() < 140
    assert split_games(names[:1], 0.5).sum() == 0
    assert split_games(names[:2], 0.001).sum() == 1
    assert split_games(names[:3], 0.0).sum() == 0


def test_recorded_probabilities_become_the_target_and_random_openings_have_none(
    paths: Paths, square8: Config, make_game: Make, save_games: Save
) -> None:
    game = make_game(square8, 1, opening=20, soft=True)
    save_games(paths.games_db(square8), square8, [game, make_game(square8, 2, opening=20)])
    export(paths, square8)
    dataset = load_dataset(paths.dataset(square8))
    arrays = dataset.arrays
    counts = np.diff(arrays["policy_offsets"])
    assert np.array_equal(counts == 0, arrays["move_numbers"] < 20)
    stored = next(one for one in iterate_games(paths.games_db(square8)) if one.game_id == game.game_id)
    assert stored.policy is not None
    mine = arrays["game_ids"][arrays["game_index"]] == game.game_id.encode()
    row = int(np.flatnonzero(mine & (counts > 0))[0])
    start, end = arrays["policy_offsets"][row : row + 2]
    assert np.array_equal(arrays["policy_values"][start:end], stored.policy.of(int(arrays["move_numbers"][row])))


def test_a_swap_of_sides_turns_the_values_before_it(
    paths: Paths, square8: Config, make_game: Make, save_games: Save
) -> None:
    games = [make_game(square8, index, swap=True) for index in range(2)]
    assert all(M_SWAP in game.moves for game in games)
    save_games(paths.games_db(square8), square8, games)
    export(paths, square8)
    arrays = load_dataset(paths.dataset(square8)).arrays
    before = arrays["exchanged"] == 1
    assert 0 < before.sum() < 20
    assert arrays["move_numbers"][before].max() <= int(np.flatnonzero(games[0].moves == M_SWAP)[0])
    for name in np.unique(arrays["game_ids"]):
        mine = arrays["game_ids"][arrays["game_index"]] == name
        winner = next(game.winner for game in games if game.game_id.encode() == name)
        assert set(arrays["winners"][mine & before].tolist()) <= {3 - winner}
        assert set(arrays["winners"][mine & ~before].tolist()) == {winner}


@pytest.mark.parametrize("key", ["hex8_3p", "square8_4p"])
def test_more_players_get_rank_values_per_seat(key: str, paths: Paths, make_game: Make, save_games: Save) -> None:
    config = parse_config(key)
    games = [make_game(config, index) for index in range(3)]
    save_games(paths.games_db(config), config, games)
    result = export(paths, config)
    arrays = load_dataset(paths.dataset(config)).arrays
    assert result["games"] == 3 and arrays["features"].shape[2:] == ((9, 9) if key == "hex8_3p" else (8, 8))
    for name, index in zip(arrays["game_ids"], range(3), strict=True):
        game = next(one for one in games if one.game_id.encode() == name)
        row = int(np.flatnonzero(arrays["game_index"] == index)[0])
        ranks = np.array(game.ranking)
        wanted = 1 - 2 * (ranks - 1) / (config.players - 1)
        assert np.allclose(arrays["values_mp"][row, : config.players], wanted)
        assert (arrays["values_mp"][row, config.players :] == 0).all()
        assert arrays["values_mp"][row, game.winner - 1] == 1.0
        assert arrays["values"][row] == arrays["values_mp"][row, arrays["players"][row] - 1]


def test_the_same_games_give_the_same_content_whatever_their_order_and_place(
    paths: Paths, square8: Config, make_game: Make, save_games: Save
) -> None:
    games = [make_game(square8, index) for index in range(4)]
    first, second = paths.root / "a.db", paths.root / "b.db"
    save_games(first, square8, games[:3])
    save_games(second, square8, [games[3], games[1]])
    one = export(paths, square8, databases=[first, second], output=paths.root / "one.npz")
    other = export(paths, square8, databases=[second, first], output=paths.root / "other.npz")
    assert one["games"] == 4 and one["doubles"] == 1
    assert one["content_digest"] == other["content_digest"]
    assert verify_dataset(paths.root / "one.npz").content_digest == one["content_digest"]
    newest = export(paths, square8, databases=[first], output=paths.root / "new.npz", max_games=2)
    assert newest["games"] == 2 and newest["content_digest"] != one["content_digest"]


def test_discovery_takes_our_databases_and_leaves_foreign_ones_alone(
    paths: Paths, square8: Config, make_game: Make, save_games: Save
) -> None:
    save_games(paths.games_db(square8), square8, [make_game(square8, 1)])
    save_games(paths.games / "selfplay.db", square8, [make_game(square8, 2)])
    hexes = parse_config("hex8_2p")
    save_games(paths.games_db(hexes), hexes, [make_game(hexes, 1)])
    foreign = sqlite3.connect(paths.games / "square8_2p.db")
    foreign.execute("CREATE TABLE games (game_id TEXT, winner INTEGER)")
    foreign.commit()
    foreign.close()
    (paths.games / "broken.db").write_bytes(b"SQLite format 3\0" + b"x" * 50)
    said: list[str] = []
    assert discover(paths, square8)[0] == paths.games_db(square8)
    result = export(paths, square8, tell=said.append)
    assert result["games"] == 2
    assert [Path(name).name for name in result["databases"]] == ["canonical_square8_2p.db", "selfplay.db"]
    assert len(said) == 2 and all("left alone" in line for line in said)
    with pytest.raises(SchemaError):
        export(paths, square8, databases=[paths.games / "square8_2p.db"])
    with pytest.raises(NotFoundError):
        export(paths, square8, databases=[paths.games / "none.db"])


def test_a_dataset_covers_exactly_the_games_it_was_made_of(
    paths: Paths, square8: Config, make_game: Make, save_games: Save
) -> None:
    db, output = paths.games_db(square8), paths.dataset(square8)
    save_games(db, square8, [make_game(square8, index) for index in range(2)])
    assert not covers(output, db)
    export(paths, square8)
    assert covers(output, db)
    save_games(db, square8, [make_game(square8, 2)])
    assert not covers(output, db)
    export(paths, square8)
    assert covers(output, db)
    assert read_metadata(output)["games"] == 3
    output.write_bytes(output.read_bytes()[:1000])
    assert not covers(output, db)


def test_without_games_there_is_a_clear_error_and_no_file(
    paths: Paths, square8: Config, make_game: Make, save_games: Save
) -> None:
    with pytest.raises(NoEvidenceError, match="ringrift selfplay"):
        export(paths, square8)
    unfinished = replace(make_game(square8, 1), winner=0, ranking=(), reason="move_cap")
    save_games(paths.games_db(square8), square8, [unfinished])
    with pytest.raises(NoEvidenceError):
        export(paths, square8)
    assert list(paths.training.glob("*.npz")) == []


def test_a_game_that_does_not_replay_is_refused_and_the_old_dataset_kept(
    paths: Paths, square8: Config, make_game: Make, save_games: Save
) -> None:
    good = make_game(square8, 1)
    save_games(paths.games_db(square8), square8, [good])
    export(paths, square8)
    before = paths.dataset(square8).read_bytes()
    moves = make_game(square8, 2).moves.copy()
    moves[4] = moves[0]
    save_games(paths.games_db(square8), square8, [replace(make_game(square8, 2), moves=moves)])
    with pytest.raises(UnverifiedError, match="does not replay"):
        export(paths, square8)
    wrong = make_game(square8, 3)
    save_games(paths.root / "w.db", square8, [replace(wrong, winner=3 - wrong.winner)])
    with pytest.raises(UnverifiedError, match="does not replay"):
        export(paths, square8, databases=[paths.root / "w.db"])
    assert paths.dataset(square8).read_bytes() == before
    assert [path.name for path in paths.training.iterdir() if path.suffix == ".tmp"] == []


def test_a_second_export_to_the_same_file_is_refused_with_the_owners_name(played: Paths, square8: Config) -> None:
    output = played.root / "shared.npz"
    with (
        FileLock(output.with_name("shared.npz.lock"), "export of square8_2p"),
        pytest.raises(LockedError, match=r"export of square8_2p \(pid"),
    ):
        export(played, square8, output=output)
    assert not output.exists()


def test_of_a_long_game_a_part_is_kept_always_the_same(square8: Config, make_game: Make) -> None:
    game = make_game(square8, 1)
    whole, part = game_samples(game), game_samples(game, most=10)
    again = game_samples(game, most=10)
    assert len(whole.counts) > 30 and len(part.counts) == 10
    numbers = part.per_sample["move_numbers"]
    assert np.array_equal(numbers, again.per_sample["move_numbers"])
    assert set(numbers.tolist()) <= set(whole.per_sample["move_numbers"].tolist())
    assert part.policy_indices.size == part.counts.sum()


def _rewritten(source: Path, target: Path, **changed: np.ndarray | None) -> Path:
    """A copy of a dataset with arrays replaced or left out, its checksums as they were."""
    with np.load(source) as loaded:
        arrays = {name: loaded[name] for name in loaded.files} | changed
    np.savez(target, **{name: array for name, array in arrays.items() if array is not None})
    return target


def _error_of(path: Path, config: Config) -> RingRiftError:
    found = []
    for read in (load_dataset, verify_dataset):
        with pytest.raises(RingRiftError) as caught:
            read(path, config=config)
        found.append(caught.value)
    assert type(found[0]) is type(found[1])
    return found[0]


def test_damaged_and_foreign_datasets_are_told_apart(played: Paths, square8: Config, tmp_path: Path) -> None:
    good, bad = played.dataset(square8), tmp_path / "bad.npz"
    data = good.read_bytes()
    bad.write_bytes(data[: len(data) // 2])
    assert isinstance(_error_of(bad, square8), UnverifiedError)
    arrays = load_dataset(good).arrays
    swapped = arrays["winners"].copy()
    swapped[0] = 3 - swapped[0]
    assert isinstance(_error_of(_rewritten(good, bad, winners=swapped), square8), UnverifiedError)
    assert isinstance(_error_of(_rewritten(good, bad, winners=None), square8), UnverifiedError)
    objects = np.array([{"a": 1}], dtype=object)
    assert isinstance(_error_of(_rewritten(good, bad, policy_values=objects), square8), UntrustedError)
    assert isinstance(_error_of(_rewritten(good, bad, metadata=None), square8), SchemaError)
    assert isinstance(_error_of(good, parse_config("hex8_2p")), SchemaError)
    np.savez(bad, features=np.zeros((2, 56, 8, 8), dtype=np.float32), values=np.zeros(2, dtype=np.float32))
    assert isinstance(_error_of(bad, square8), SchemaError)
    assert isinstance(_error_of(tmp_path / "none.npz", square8), NotFoundError)


def _forged(good: Path, bad: Path, square8: Config, **changed: np.ndarray) -> Path:
    """The dataset with other arrays and with checksums that fit them."""
    dataset = load_dataset(good)
    arrays = {name: dataset.arrays[name] for name in dataset_module._ARRAYS} | changed
    write_dataset(bad, square8, arrays, dict(dataset.metadata))
    return bad


@pytest.mark.parametrize(
    ("name", "at", "value"),
    [
        ("features", (0, 0, 3, 3), 200),  # a kind of cell: the plane that is written
        ("features", (0, 3, 3, 3), 99),
        ("features", (0, 4, 3, 3), 8),
        ("players", 0, 3),
        ("winners", 0, 0),
        ("game_index", 0, -1),
        ("game_index", 0, 12),
        ("final_cells", (0, 0, 0), 9),
        ("policy_indices", 0, 64 << 5),  # a cell of no board
        ("policy_indices", 0, 31),
        ("policy_indices", 0, -5),
        ("policy_values", 0, np.nan),
    ],
)
def test_values_that_would_lead_the_compiled_readers_astray_are_refused(
    played: Paths, square8: Config, tmp_path: Path, name: str, at: object, value: float
) -> None:
    good, bad = played.dataset(square8), tmp_path / "bad.npz"
    array = load_dataset(good).arrays[name].copy()
    array[at] = value
    with pytest.raises(SchemaError, match=name):
        load_dataset(_forged(good, bad, square8, **{name: array}))


def test_a_dataset_without_its_version_or_with_odd_provenance_is_refused(
    played: Paths, square8: Config, tmp_path: Path
) -> None:
    good, bad = played.dataset(square8), tmp_path / "bad.npz"
    arrays, _ = read_npz(good)
    stated = json.loads(str(arrays["data_checksums"]))
    del arrays["encoder_version"], stated["encoder_version"]
    with bad.open("wb") as stream:
        write_npz(stream, arrays | {"data_checksums": np.array(json.dumps(stated))})
    assert "encoder_version" in str(_error_of(bad, square8))
    _rewritten(good, bad, metadata=np.array("[" * 100_000))
    assert isinstance(_error_of(bad, square8), UnverifiedError)
    odd = json.loads(str(read_npz(good)[0]["metadata"])) | {"sources": ["here"], "samples": "many"}
    _rewritten(good, bad, metadata=np.array(json.dumps(odd)))
    assert not covers(bad, played.games_db(square8))
    with pytest.raises(SchemaError, match="provenance"):
        verify_dataset(bad)


def test_a_dataset_holds_no_objects_and_its_provenance(played: Paths, square8: Config) -> None:
    path = played.dataset(square8)
    with np.load(path, allow_pickle=False) as loaded:
        assert all(loaded[name].dtype != object for name in loaded.files)
        assert set(json.loads(str(loaded["data_checksums"]))) == set(loaded.files) - {"metadata", "data_checksums"}
    metadata = read_metadata(path)
    assert (metadata["games"], metadata["config"]) == (12, "square8_2p")
    assert metadata["sources"][0]["games"] == 12
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def _export_to(root: Path) -> None:
    export(Paths(root), parse_config("square8_2p"))


def test_an_export_killed_half_way_leaves_no_partial_dataset(
    paths: Paths, square8: Config, make_game: Make, save_games: Save
) -> None:
    save_games(paths.games_db(square8), square8, [make_game(square8, index) for index in range(60)])
    output = paths.dataset(square8)
    for pause in (0.0, 0.02, 0.05):
        worker = multiprocessing.get_context("fork").Process(target=_export_to, args=(paths.root,))
        worker.start()
        worker.join(pause)
        worker.kill()
        worker.join()
        if output.exists():
            assert verify_dataset(output).games == 60
            output.unlink()
    export(paths, square8)
    assert verify_dataset(output).games == 60
