"""Files of the reference installation are read by their headers alone, and kept only when they are what they say."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.errors import NoEvidenceError, RingRiftError, SchemaError, UnverifiedError
from backend.jobs.merge_foreign import keep_dataset, keep_gauntlet
from backend.paths import Paths
from backend.registry.hashing import read_sidecar, sha256_file
from backend.training.npz import read_headers
from tests.lab.checkout import SAMPLES, write_dataset

PARAMS = {"runtime": "ai-service"}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "held/data/training/hex8_2p.npz"
    path.parent.mkdir(parents=True)
    write_dataset(path)
    return path


def kept(paths: Paths, dataset: Path, **reported: Any) -> dict[str, Any]:
    return keep_dataset(paths, "hex8_2p", PARAMS, dataset.parents[2], reported)


def test_the_same_file_is_kept_once_under_its_hash(paths: Paths, dataset: Path) -> None:
    first, second = kept(paths, dataset, samples=SAMPLES), kept(paths, dataset)
    assert first["path"] == second["path"] and first["samples"] == SAMPLES
    path = Path(first["path"])
    assert path.name == f"{first['sha256'][:16]}.npz" and sha256_file(path) == read_sidecar(path) == first["sha256"]
    path.write_bytes(b"damaged since")
    assert sha256_file(Path(kept(paths, dataset)["path"])) == first["sha256"]


def test_nothing_of_a_dataset_is_unpickled(dataset: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return open, (str(tmp_path / "sprung"), "w")

    trapped = np.empty(SAMPLES, dtype=object)
    trapped[:] = [Trap() for _ in range(SAMPLES)]
    np.savez(dataset, features=np.zeros((SAMPLES, 2)), values=np.zeros(SAMPLES), policy_indices=trapped)
    headers, _ = read_headers(dataset)
    assert headers["policy_indices"][0] == (SAMPLES,)
    assert not (tmp_path / "sprung").exists()


def test_what_is_not_what_it_says_is_not_kept(paths: Paths, dataset: Path) -> None:
    def refused(kind: type[RingRiftError], what: str, **reported: Any) -> None:
        with pytest.raises(kind, match=what):
            kept(paths, dataset, **reported)
        assert not (paths.root / "data").exists()

    refused(SchemaError, f"told of 7 samples, and the dataset has {SAMPLES}", samples=7)
    write_dataset(dataset, board="square8")
    refused(SchemaError, "for square8, not hex8")
    write_dataset(dataset, samples=0)
    refused(NoEvidenceError, "no samples")
    np.savez(dataset, features=np.zeros((4, 2)))
    refused(UnverifiedError, "has no values")
    np.savez(dataset, features=np.zeros((4, 2)), values=np.zeros(3))
    refused(SchemaError, "4 features and 3 values")
    write_dataset(dataset)
    dataset.write_bytes(dataset.read_bytes()[:-200])
    refused(UnverifiedError, "truncated")
    with zipfile.ZipFile(dataset, "w") as archive:
        archive.writestr("readme.txt", "x")
    refused(UnverifiedError, "no array")


def test_a_gauntlet_without_rates_is_no_result(paths: Paths) -> None:
    params = PARAMS | {"save": "m.pth", "games": 3, "sha256": "a" * 64}
    with pytest.raises(NoEvidenceError, match="no win rates"):
        keep_gauntlet(paths, "hex8_2p", params, paths.root, {"random_percent": 90.0})
    told = {"random_percent": 66.7, "heuristic_percent": 0.0, "games_played": 6}
    result = keep_gauntlet(paths, "hex8_2p", params, paths.root, told)
    assert result["foreign_opponents"]["random"]["wins"] == 2
    assert "opponents" not in result and result["players"] is None
