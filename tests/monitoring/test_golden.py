"""Golden positions: the same everywhere, and a changed weight, another file, a missing one and a drift are told."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.configs import CONFIGS, Config, parse_config
from backend.errors import Exit, SchemaError, UnverifiedError
from backend.evaluation.golden import positions
from backend.evaluation.golden.check import check_model
from backend.evaluation.golden.fingerprint import TOLERANCE, Fingerprint, outputs_of
from backend.evaluation.golden.positions import COUNT, golden_states, suite
from backend.paths import Paths
from backend.registry.hashing import sha256_file, write_sidecar
from backend.registry.store import find
from backend.rules import load
from backend.rules.layout import TURN
from backend.rules.legal import legal_into
from backend.snapshot import ModelRow
from backend.training.checkpoint import load_model
from backend.training.packing import pack_states, unpack_batch
from backend.training.policy import write_all_operands
from ringrift_console.cli import main
from tests.monitoring.conftest import MakeModel, save


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_the_positions_are_those_that_were_committed(config: Config) -> None:
    assert suite(config) == positions.DIGESTS[config.key]
    states, rules = golden_states(config.key), load(config)
    assert states.shape == (COUNT, rules.size) and len({state.tobytes() for state in states}) == COUNT
    assert all(len(rules.legal(state)) > 1 for state in states)
    assert states[:, TURN].max() > 30 > 4 >= states[:, TURN].min()


def test_asking_a_network_compiles_no_kernel_anew(tmp_path: Path) -> None:
    save(tmp_path / "m.pth", "hex8_2p", 5)
    load(parse_config("hex8_2p"))
    kernels = (legal_into, pack_states, unpack_batch, write_all_operands)
    before = [set(kernel.signatures) for kernel in kernels]  # type: ignore[attr-defined]
    outputs_of(load_model(tmp_path / "m.pth"))
    found = [set(kernel.signatures) for kernel in kernels]  # type: ignore[attr-defined]
    assert all(len(now) == max(1, len(was)) for now, was in zip(found, before, strict=True))


def test_rules_that_give_other_positions_are_not_blamed_on_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positions, "DIGESTS", dict(positions.DIGESTS) | {"hex8_2p": "0" * 16})
    with pytest.raises(UnverifiedError, match="other golden positions"):
        suite(parse_config("hex8_2p"))


@pytest.mark.parametrize("key", ["hex8_2p", "square8_3p", "hex8_4p"])
def test_a_fingerprint_is_the_same_again_and_tells_a_changed_weight(key: str, tmp_path: Path) -> None:
    save(tmp_path / "m.pth", key, 5)
    model = load_model(tmp_path / "m.pth")
    known = Fingerprint.of_text(outputs_of(model).fingerprint().text())
    assert known.values.shape == (COUNT, model.config.players)
    torch.set_num_threads(2)
    assert outputs_of(model).drift(known) < TOLERANCE / 100
    weight = model.network.get_parameter("stem.bias")
    weight.data[3] += 0.02
    assert outputs_of(model).drift(known) > TOLERANCE
    weight.data[3] = np.nan
    assert outputs_of(model).drift(known) == float("inf")


def test_a_fingerprint_that_cannot_be_read_is_told() -> None:
    for text in ("", "{}", '{"suite": "x", "moves": [[1]], "chances": [[1]], "values": [[1]]}'):
        with pytest.raises(SchemaError):
            Fingerprint.of_text(text)


def replace_file(paths: Paths, row: ModelRow) -> Path:
    """The place of a model's file, emptied: registered files are read-only links."""
    path = paths.root / row.path
    path.unlink()
    return path


def test_the_first_check_keeps_the_fingerprint_and_the_next_compare(paths: Paths, make_network: MakeModel) -> None:
    row = make_network()
    assert check_model(paths, row).outcome == "new"
    found = check_model(paths, row)
    assert found.outcome == "sound" and found.drift is not None and found.drift < TOLERANCE / 100


def test_a_changed_weight_another_file_and_a_missing_one_are_told(paths: Paths, make_network: MakeModel) -> None:
    row, other = make_network(), make_network()
    check_model(paths, row)
    path = replace_file(paths, row)
    assert check_model(paths, row).outcome == "missing"

    path.write_bytes((paths.root / other.path).read_bytes())
    write_sidecar(path, sha256_file(path))
    found = check_model(paths, row)
    assert found.outcome == "changed" and other.sha256[:12] in found.detail

    content = torch.load(paths.root / "made" / "m1.pth", weights_only=True)
    content["model_state_dict"]["stem.bias"][3] += 1e-3
    path.unlink()
    torch.save(content, path)
    assert check_model(paths, row).outcome == "changed"

    path.unlink()
    os.link(paths.root / "made" / "m1.pth", path)
    write_sidecar(path, row.sha256)
    assert check_model(paths, row).outcome == "sound"


def test_the_same_file_that_says_something_else_is_a_drift(paths: Paths, make_network: MakeModel) -> None:
    """What the program makes of a file has changed: here the stored outputs are moved instead of the program."""
    row = make_network()
    check_model(paths, row)
    with closing(sqlite3.connect(paths.registry_db)) as db, db:
        text = db.execute("SELECT outputs FROM golden_fingerprints").fetchone()[0]
        value = json.loads(text)
        value["values"][7][0] += 3 * TOLERANCE
        db.execute("UPDATE golden_fingerprints SET outputs = ?", (json.dumps(value),))
    found = check_model(paths, row)
    assert found.outcome == "drift" and found.drift == pytest.approx(3 * TOLERANCE, rel=0.05)


def test_a_file_that_cannot_be_loaded_is_told_and_one_of_another_program_is_not_a_fault(
    paths: Paths, make_network: MakeModel
) -> None:
    from backend.registry.store import Candidate, register

    broken, foreign = paths.root / "broken.pth", paths.root / "foreign.pth"
    paths.root.mkdir(parents=True, exist_ok=True)
    broken.write_bytes(b"PK no archive")
    torch.save({"model_state_dict": {}, "_versioning_metadata": {"model_class": "RingRiftCNN_v3"}}, foreign)
    config = parse_config("hex8_2p")
    rows = [find(paths, register(paths, Candidate(file=file, config=config)).label) for file in (broken, foreign)]
    assert [check_model(paths, row).outcome for row in rows] == ["unloadable", "unsupported"]


def test_the_verb_checks_what_is_in_production_and_what_a_rollback_may_go_to(
    paths: Paths, in_production: Callable[..., list[ModelRow]], capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = in_production()
    argv = ("monitor", "golden", "--config", "hex8_2p", "--root", str(paths.root))
    assert main([*argv, "--json"]) == Exit.DONE
    told = json.loads(capsys.readouterr().out)
    assert [(one["model"], one["outcome"]) for one in told] == [(new.label, "new"), (old.label, "new")]
    replace_file(paths, new)
    assert main([*argv]) == Exit.UNVERIFIED
    assert "missing" in capsys.readouterr().out
    assert main(["monitor", "golden", old.label, "--root", str(paths.root)]) == Exit.DONE
    assert main(["monitor", "golden", "--config", "hex9_2p", "--root", str(paths.root)]) == Exit.USAGE


def test_a_production_model_that_was_not_adopted_is_left_out_and_told(
    paths: Paths, in_production: Callable[..., list[ModelRow]], capsys: pytest.CaptureFixture[str]
) -> None:
    (own,) = in_production(1)
    training = json.dumps({"extra_config": {"board_type": "hex8", "num_players": 3}})
    with closing(sqlite3.connect(paths.registry_db)) as db, db:
        db.execute(
            "INSERT INTO versions (model_id, version, stage, file_path, file_hash, file_size_bytes, metrics_json,"
            " training_config_json, created_at, updated_at) VALUES ('theirs', 1, 'production', 'models/theirs.pth', ?,"
            " 7, '{}', ?, '2026-01-01', '2026-01-01')",
            ("ab" * 32, training),
        )
    assert main(["monitor", "golden", "--json", "--root", str(paths.root)]) == Exit.DONE
    out, err = capsys.readouterr()
    assert [one["model"] for one in json.loads(out)] == [own.label]
    assert "hex8_3p: theirs:v1 is another installation's" in err and "ringrift adopt" in err
