"""What moves the bytes of one file to several hosts.

A transport is an engine: BitTorrent, aria2, rsync, plain bytes over SSH. It decides nothing: who gets the file, in
which order, by which engine, when to give up and whether to believe what arrived is settled elsewhere. It gets a
:class:`Group` (a file, and hosts with a place each) and brings the file to :attr:`Target.data` on every one of them.

The rules of the game, which the contract tests hold every transport to:

- **One file, one writer.** The bytes go to :attr:`Target.data` and nowhere else. Whatever else an engine needs on the
  host lies in the same private folder :attr:`Target.folder` under names that begin with the transport's name.
- **A partial file is common property.** The file may be there already: a prefix, a whole file with holes, or rubbish.
  :attr:`Target.good` says which pieces of it are right. An engine uses what it can and leaves what it has fetched.
- **Complete is a claim**, made when the engine has flushed and closed the file. The receiver then checks it; when that
  fails, the runner cancels the host's part, and starts it again.
- **start is ensure.** The same group started again, also by another supervisor after this one was killed, takes up what
  still runs on the hosts, or ends it and begins anew; never are there two writers.
- **cancel is final.** When it returns, nothing of the transport writes on these hosts, or the host cannot be reached;
  then the engine there ends when its lease does.
- **Nothing outlives the head.** Whatever runs on a host by itself ends when the file :attr:`Target.lease` is older than
  :data:`LEASE_S` by the host's own clock (its mtime), or gone. The runner renews it.
- Secrets go through standard input or files of mode 0600, never through argv or the environment, and no shell sees a
  word.
- Nothing raises but for bugs: troubles are :class:`~backend.distribution.reasons.Failure` values in the observations.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from backend.distribution.reasons import Failure
from backend.fleet.hosts import Host, Hosts
from backend.paths import Paths

if TYPE_CHECKING:
    from backend.fleet.ssh import SshPool

DATA = "data"
"""The leaf name of a staged file, whatever the file is called; no name from outside is ever a path there."""
LEASE_S = 600.0
"""Seconds after which a host's lease is over (research: renewed each 30 s)."""
RENEW_S = 30.0


@dataclass(frozen=True, slots=True)
class Payload:
    """The bytes to be moved, as they were when the transfer was planned.

    Attributes:
        path: the file on this machine.
        size: in bytes.
        sha256: of the whole file, hexadecimal; its identity.
        kind: ``checkpoint``, ``npz`` or ``other``.
        piece_size: bytes of a piece; the last one may be shorter.
        pieces: SHA-256 of every piece, 32 bytes each, in order.
    """

    path: Path
    size: int
    sha256: str
    kind: str
    piece_size: int
    pieces: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Target:
    """A host that wants the file, and where it goes there.

    Attributes:
        position: its place in the order of the group, 1 first: GPU hosts, then by bandwidth; slow hosts last. An engine
            that draws a graph lets nobody depend on a host with a higher number.
        folder: absolute path of the private folder (0700, made and checked by the receiver) of this file's stage.
        data: ``<folder>/data``.
        lease: absolute path of the host's lease file.
        good: one byte a piece, 1 where the file there has the right bytes already; empty when nothing is there.
        facts: what the host told of itself (``tools`` with the paths of ``rsync``, ``aria2c``; ``python``; ...).
        mbit: what is known of its link; None when nothing is.
    """

    host: Host
    position: int
    folder: str
    lease: str
    good: bytes = b""
    facts: Mapping[str, Any] = field(default_factory=dict)
    mbit: float | None = None

    @property
    def name(self) -> str:
        return self.host.name

    @property
    def data(self) -> str:
        return f"{self.folder}/{DATA}"


@dataclass(frozen=True, slots=True)
class Source:
    """A host that holds the file, verified and published, and may give it to others.

    Attributes:
        path: absolute path of a read-only file with exactly these bytes there.
    """

    host: Host
    path: str
    folder: str
    lease: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes a second that the group may use; None is no limit.

    Attributes:
        host_up, host_down: of every host.
        hosts: (up, down) of hosts that have limits of their own, in place of these.
    """

    head_up: float | None = None
    host_up: float | None = None
    host_down: float | None = None
    hosts: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)

    def up(self, host: str) -> float | None:
        """What a host may give."""
        return self.hosts[host][0] if host in self.hosts else self.host_up

    def down(self, host: str) -> float | None:
        """What a host may take."""
        return self.hosts[host][1] if host in self.hosts else self.host_down


@dataclass(frozen=True, slots=True)
class Group:
    """What one engine is asked to do: one file, several hosts.

    Attributes:
        id: the same for the same work, also after a crash; letters, digits, ``-`` and ``.`` only.
        epoch: of the supervisor; an engine on a host obeys no older one.
    """

    id: str
    payload: Payload
    targets: tuple[Target, ...]
    sources: tuple[Source, ...] = ()
    budget: Budget = Budget()
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Peer:
    """Another party that a host exchanges bytes with.

    Attributes:
        name: a host of the hosts file, or ``head``.
        down, up: bytes a second now, seen from the observed host.
        received, sent: bytes of the file so far.
    """

    name: str
    down: float = 0.0
    up: float = 0.0
    received: int = 0
    sent: int = 0


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known of one host's part now.

    Attributes:
        have: bytes of the file that are on the host and thought good.
        rate: bytes a second that come in.
        received: bytes of the file that came over the wire in this run, duplicates included.
        sent: bytes that the host gave to others.
        peers: whom it is connected to.
        pieces: a picture of what it has, at most 128 cells, one digit each: 0 nothing .. 9 all; empty when unknown.
        complete: the engine has the whole file, flushed and closed.
        failure: why it does not go on; a host with one is not worked on any more.
        fault: trouble that does not end it, such as "3 of 4 peers do not answer".
        unreached: whom it was to exchange bytes with and does not get through to, and why.
        waits: it waits for its turn, or reads what is there already: no stall, though no byte comes.
    """

    host: str
    have: int = 0
    rate: float = 0.0
    received: int = 0
    sent: int = 0
    peers: tuple[Peer, ...] = ()
    pieces: str = ""
    complete: bool = False
    failure: Failure | None = None
    fault: str = ""
    unreached: tuple[tuple[str, str], ...] = ()
    waits: bool = False

    @property
    def ended(self) -> bool:
        return self.complete or self.failure is not None


@dataclass(frozen=True, slots=True)
class HeadUse:
    """What a delivery takes of this machine's uplink: bytes of the file so far, and bytes a second now."""

    sent: int = 0
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Means:
    """What a transport may use.

    Attributes:
        owner: names this root towards hosts.
        private: a folder of mode 0700 on this machine for the secrets and files of transports.
    """

    paths: Paths
    pool: SshPool
    hosts: Hosts
    owner: str
    private: Path


class Delivery(Protocol):
    """A group under way."""

    def observe(self) -> Mapping[str, Observation]:
        """The newest observation of every host of the group; never waits."""
        ...

    def head(self) -> HeadUse: ...

    async def join(self, targets: Sequence[Target]) -> None:
        """More hosts, or hosts again whose part had ended."""
        ...

    async def offer(self, sources: Sequence[Source]) -> None:
        """Hosts that hold the file by now; an engine with a single source does nothing."""
        ...

    async def limit(self, budget: Budget) -> None:
        """Another budget from now on."""
        ...

    async def cancel(self, hosts: Collection[str]) -> None:
        """Ends the part of these hosts; what they have stays. Hosts that are complete stop giving to others."""
        ...

    async def close(self) -> None:
        """Ends everything of the group, here and on the hosts."""
        ...


class Transport(Protocol):
    """An engine.

    Attributes:
        name: short, stored and shown: ``torrent``, ``aria2``, ``rsync``, ``stream``.
        many: hosts give to each other, so that the head sends about one copy whatever their number.
    """

    name: str
    many: bool

    def here(self, means: Means) -> Failure | None:
        """Why it cannot be used on this machine; None when it can. Cheap."""
        ...

    def there(self, means: Means, host: Host, facts: Mapping[str, Any]) -> Failure | None:
        """Why it cannot reach a host, as far as the facts say; None when it may work. Asks nobody."""
        ...

    async def start(self, means: Means, group: Group) -> Delivery:
        """Begins, or takes up, the work; returns at once, troubles show in the observations."""
        ...
