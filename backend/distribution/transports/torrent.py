"""BitTorrent as a transport: the hosts give to each other, and about one copy leaves the head.

See :mod:`backend.distribution.torrent` for the parts, and docs/distribution-torrent.md for how it works.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from backend.distribution.reasons import Failure, Reason
from backend.distribution.torrent.channel import Opener, Stream
from backend.distribution.torrent.swarm import Swarm
from backend.distribution.transports.base import Group, Means, Source
from backend.fleet.hosts import Host


class TorrentDelivery(Swarm):
    """A swarm under way; hosts that have published the file go on giving without being offered."""

    async def offer(self, sources: Sequence[Source]) -> None:
        """Nothing: the members of the swarm are its sources."""


class TorrentTransport:
    """The engine.

    Args:
        tls: peers must show a certificate of the transfer's own authority, and talk encrypted.
    """

    name = "torrent"
    many = True

    def __init__(self, *, tls: bool = True) -> None:
        self.tls = tls

    def here(self, means: Means) -> Failure | None:
        for package in ("libtorrent", "cryptography") if self.tls else ("libtorrent",):
            if find_spec(package) is None:
                return Failure(Reason.NOT_HERE, f"no {package} here", f"pip install {package}")
        return None

    def there(self, means: Means, host: Host, facts: Mapping[str, Any]) -> Failure | None:
        found = facts.get("versions")  # as the last bootstrap has found them; before that nothing is known
        if isinstance(found, Mapping) and "libtorrent" in found and found["libtorrent"] is None:
            hint = "install libtorrent 2.1 for it and bootstrap again"
            return Failure(Reason.NOT_THERE, "its Python has no libtorrent", hint)
        return None

    async def start(self, means: Means, group: Group) -> TorrentDelivery:
        def opener(host: Host) -> Opener:
            async def open_on(argv: Sequence[str]) -> Stream:
                return await means.pool.open_stream(host, list(argv))

            return open_on

        return TorrentDelivery(group, opener, reached=means.pool.peer_address, tls=self.tls)
