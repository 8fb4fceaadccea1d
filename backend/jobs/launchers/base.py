"""How attempts reach a host. Every launcher keeps the same promises; one contract suite holds for all of them.

* ``start`` is idempotent on the attempt's key: asking again never runs a command twice.
* ``observe`` tells evidence, never a guess. That a host cannot be asked is :class:`UnreachableError`, not a phase.
* ``cancel`` is a wish; only an observation says that an attempt has ended.
* A launcher never retries and never decides.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from backend.errors import RingRiftError
from backend.jobs import agent
from backend.jobs.model import Exit, Observation, Phase

REQUEST_S = 60.0
LINE_BYTES = 4 * 1024 * 1024


class UnreachableError(RingRiftError):
    """The host could not be asked; nothing follows for its jobs."""


class RefusedStartError(RingRiftError):
    """The host answered and would not do it; ``kind`` is one of :class:`backend.jobs.agent.AgentError`."""

    def __init__(self, kind: str, message: str, *, where: str = "") -> None:
        super().__init__(message, where=where)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class AttemptSpec:
    """What a host is asked to run, under which key.

    Attributes:
        owner: names the root that it belongs to.
        argv: the command, a list of words; never a shell string.
        env: added to the agent's own environment; no secrets.
        wall_s: time limit in seconds, or None.
        grace_s: seconds between TERM and KILL.
        gpus: indices or UUIDs of the GPUs that it has for itself; it sees no others.
        engine: what a scheduler is asked for it, see :class:`backend.jobs.launchers.slurm_pool.Request`.
    """

    key: str
    owner: str
    argv: tuple[str, ...]
    cwd: str | None
    env: Mapping[str, str]
    wall_s: float | None = None
    grace_s: float = 10.0
    gpus: tuple[str, ...] = ()
    engine: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        more: dict[str, Any] = {"gpus": list(self.gpus)} if self.gpus else {}
        more |= {"engine": dict(self.engine)} if self.engine else {}
        return {
            "key": self.key,
            "owner": self.owner,
            "argv": list(self.argv),
            "cwd": self.cwd,
            "env": dict(self.env),
            "wall_s": self.wall_s,
            "grace_s": self.grace_s,
        } | more  # without, the digest is that of an older program

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> AttemptSpec:
        return cls(**(dict(value) | {"argv": tuple(value["argv"]), "gpus": tuple(value.get("gpus", ()))}))

    @property
    def digest(self) -> str:
        return agent.digest_of(self.to_json())


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Bytes of a job's file from ``offset``; ``identity`` changes when the file is another one."""

    data: bytes
    offset: int
    size: int
    identity: str | None

    @property
    def next(self) -> int:
        return self.offset + len(self.data)


class Launcher(Protocol):
    """One host, or one engine that places attempts itself."""

    name: str

    async def start(self, spec: AttemptSpec) -> Observation:
        """Starts an attempt, or tells how it stands when it was started before.

        Raises:
            UnreachableError: it is not known whether it was started; ask again.
            RefusedStartError: the host would not.
        """
        ...

    async def observe(self, keys: Collection[str]) -> dict[str, Observation]:
        """The evidence about each key; one of which nothing can be said now is left out."""
        ...

    def why_mute(self, key: str) -> str:
        """Why the last :meth:`observe` left a key out."""
        ...

    async def cancel(self, key: str, *, by: str, reason: str, grace_s: float = 10.0) -> Observation:
        """Wishes an attempt to end, also one that was never started: then it never will be."""
        ...

    async def read_log(self, key: str, offset: int, limit: int, *, name: str = "log") -> LogChunk:
        """A piece of ``log`` or ``progress.jsonl``; empty when there is nothing at ``offset`` yet."""
        ...

    async def owned(self) -> tuple[str, ...]:
        """Keys of this root's attempts that the host has and that were not acknowledged."""
        ...

    async def acknowledge(self, keys: Collection[str]) -> None:
        """Tells the host that the ends of these attempts are stored here durably."""
        ...

    async def close(self) -> None:
        """Lets go of the host; jobs go on."""
        ...


class LineReader(Protocol):
    """Where answers come from. A loss is an :class:`OSError`, the end an empty line."""

    async def readline(self) -> bytes: ...


class LineWriter(Protocol):
    """Where requests go."""

    def write(self, data: bytes, /) -> None: ...

    async def drain(self) -> None: ...

    def close(self) -> None: ...


class AgentChannel:
    """Requests and answers of one ``agent serve``, over whatever carries its input and output."""

    def __init__(self, reader: LineReader, writer: LineWriter, where: str) -> None:
        self._reader, self._writer, self.where = reader, writer, where
        self._turn = asyncio.Lock()
        self._number = 0
        self.broken = False

    async def greet(self) -> None:
        """Passes over the noise of a login shell up to the agent's greeting."""
        greeting = f"{agent.MAGIC} {agent.PROTOCOL}".encode()
        try:
            async with asyncio.timeout(REQUEST_S):
                while not (line := await self._reader.readline()).strip().endswith(greeting):
                    if not line:
                        raise UnreachableError("the agent did not come up", where=self.where)
        except (TimeoutError, ValueError, OSError) as error:
            raise UnreachableError("the agent did not come up", where=self.where, hint=str(error)) from error

    async def ask(self, operation: str, **fields: Any) -> dict[str, Any]:
        """One request.

        Raises:
            UnreachableError: no answer came; whether it was carried out is not known.
            RefusedStartError: the answer is an error.
        """
        async with self._turn:
            self._number += 1
            request = {"id": self._number, "op": operation} | fields
            complete = False
            try:
                async with asyncio.timeout(REQUEST_S):
                    self._writer.write(json.dumps(request).encode() + b"\n")
                    await self._writer.drain()
                    line = await self._reader.readline()
                reply = json.loads(line)
                complete = reply["id"] == self._number
                if not complete:
                    raise UnreachableError("the agent's answers are out of step", where=self.where)
            except (TimeoutError, ValueError, OSError) as error:
                raise UnreachableError("the agent does not answer", where=self.where, hint=str(error)) from error
            finally:
                # An answer that nobody waited for would be taken for that of the next request.
                self.broken = self.broken or not complete
        if "ok" in reply:
            return dict(reply["ok"])
        raise RefusedStartError(str(reply.get("error")), str(reply.get("message")), where=self.where)

    def close(self) -> None:
        self.broken = True
        self._writer.close()


def observation(report: Mapping[str, Any]) -> Observation:
    """An agent's report as an observation."""
    record = report.get("exit") or {}
    child = report.get("child") or {}
    said = {"engine_said": report["engine_said"]} if report["state"] == "exited" and report.get("engine_said") else {}
    return Observation(
        key=str(report["key"]),
        phase=Phase(report["state"]),
        exit=Exit.from_json(record) if report["state"] == "exited" else None,
        record=dict(record),
        evidence=dict(report.get("evidence") or {}) | said,
        result=report.get("result"),
        log_size=int(report.get("log_size") or 0),
        started_at=child.get("at"),
        ended_at=record.get("at"),
    )


def log_chunk(answer: Mapping[str, Any]) -> LogChunk:
    """An agent's answer to ``read``."""
    return LogChunk(base64.b64decode(answer["data"]), int(answer["offset"]), int(answer["size"]), answer["identity"])
