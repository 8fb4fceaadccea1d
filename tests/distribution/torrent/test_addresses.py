"""By which address hosts of a swarm are known."""

from __future__ import annotations

import pytest

from backend.distribution.reasons import Failure, Reason
from backend.distribution.torrent.addresses import Ends, find_ends
from backend.fleet.hosts import Host


@pytest.mark.parametrize(
    ("settings", "known", "found"),
    [
        ({"peer_address": "127.77.0.1", "ssh_host": "127.77.0.2"}, "127.77.0.3", "127.77.0.1"),
        ({"peer_address": "localhost", "ssh_host": "127.77.0.2"}, "127.77.0.3", "127.0.0.1"),
        ({"tailscale_ip": "127.77.0.4", "ssh_host": "127.77.0.2"}, None, "127.77.0.4"),
        ({"ssh_host": "me@127.77.0.2"}, None, "127.77.0.2"),
        ({"ssh_host": "an-alias.invalid"}, "127.77.0.3", "127.77.0.3"),
        ({"ssh_host": "localhost"}, "::1", "127.0.0.1"),
        ({"ssh_host": "localhost"}, None, "127.0.0.1"),
    ],
)
async def test_what_the_hosts_file_says_else_where_ssh_has_found_it(
    settings: dict[str, str], known: str | None, found: str
) -> None:
    assert await find_ends(Host("h1", settings), lambda host: known) == Ends(found, "127.0.0.1")


async def test_a_name_that_nobody_knows_is_told_with_what_to_do() -> None:
    for settings in ({"ssh_host": "an-alias.invalid"}, {"peer_address": "an-alias.invalid"}, {"ssh_host": "a" * 300}):
        ends = await find_ends(Host("h1", settings), lambda host: None)
        assert isinstance(ends, Failure) and ends.reason is Reason.NO_ROUTE and "peer_address" in ends.hint
