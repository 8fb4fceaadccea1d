"""Files that lie although their hash is right: hosts refuse them by themselves, whatever was believed here."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from backend.distribution import ledger
from backend.distribution.ledger import Wanted
from backend.distribution.manifest import make_payload
from backend.distribution.plans import published_name
from backend.errors import UsageError
from backend.paths import Paths
from backend.state.store import StateStore
from tests.distribution.conftest import Cluster
from tests.distribution.test_runner import describe, runner_of, until

MakeCluster = Callable[..., Awaitable[Cluster]]


async def test_a_dataset_with_lying_headers_stops_the_transfer_at_the_first_host(
    make_cluster: MakeCluster, paths: Paths
) -> None:
    cluster = await make_cluster(2)
    describe(cluster)
    target = io.BytesIO()
    np.savez(target, values=np.zeros(4))
    path = paths.root / "hex8_2p.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(target.getvalue().replace(b"'shape': (4,), ", b"'shape': (9,), "))
    payload = make_payload(path)
    hosts = tuple((name, ("stream",), 1) for name in cluster.hosts)
    async with await StateStore.open(paths) as store:
        wanted = Wanted(
            "t", "export", "data/training/hex8_2p.npz", str(path), payload.sha256, payload.size, "npz", hosts
        )
        name = await ledger.create(store, wanted, "o0")  # as if nobody had looked at it before
        runner = runner_of(cluster, store)
        row = await until(runner, store, name)
        await runner.close()
        assert (row.state, row.live, {host.reason for host in row.hosts}) == ("failed", 0, {"not loadable"})
        assert "values.npy" in row.hosts[0].failure
        assert not any((cluster.base(host) / row.name).exists() for host in cluster.hosts)
        halted = await store.events(type="TRANSFER_HALTED")
        assert halted and "not loadable" in halted[0].payload["title"]


@pytest.mark.parametrize(
    "name", ["..", "../../evil.pth", "a b\n.pth", "-rf.pth", "$(reboot).pth", ".hidden.pth", "ü.pth"]
)
def test_a_name_from_here_is_a_plain_name_there(name: str) -> None:
    path = Path("/somewhere") / name
    try:
        made = published_name(None, path, "checkpoint")
    except UsageError:
        return
    folder, _, leaf = made.partition("/")
    assert folder == "models" and leaf and not leaf.startswith((".", "-"))
    assert set(leaf) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+@-")
