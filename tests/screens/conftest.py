"""A root as a reader would show it, a clock that stands still, and an app that shows them without a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backend.configs import CONFIGS
from backend.paths import Paths
from backend.plans import Plan
from backend.snapshot import (
    AttemptRow,
    ConfigRow,
    DeliveryRow,
    EventRow,
    GpuSample,
    HostRow,
    HostSample,
    HostTrouble,
    JobProgress,
    JobRow,
    ModelRow,
    Need,
    PolicyRow,
    Snapshot,
    SupervisorRow,
    TransferRow,
    WinRate,
)

PATIENCE_S = 120.0
NOW = datetime(2026, 3, 4, 14, 7, 30, tzinfo=UTC)


async def press(pilot: Any, *keys: str) -> None:
    """Keys one after the other, each when what the one before did is done."""
    for key in keys:
        await pilot.press(key)
        await pilot.pause()


async def until(pilot: Any, good: Callable[[], bool]) -> None:
    """Waits for a condition."""
    end = time.monotonic() + PATIENCE_S
    while not good():
        assert time.monotonic() < end, "\n".join(s.text for s in pilot.app.screen._compositor.render_strips())
        await pilot.pause(0.02)


def ago(**parts: float) -> datetime:
    return NOW - timedelta(**parts)


def make_model(version: int, config: str = "square8_2p", stage: str = "development", **extra: Any) -> ModelRow:
    return ModelRow(
        model_id=config, version=version, sha256=f"{version:02x}{'ab12cd34' * 8}"[:64], config=config, stage=stage,
        path=f"/data/models/{config}/v{version}.pth", size=10_300_000, created_at=ago(hours=5 * version), games=200,
        win_rates=(
            WinRate("random:1", 93, 100, 100, 0, 0.863, 0.966), WinRate("heuristic:1", 41, 100, 99, 1, 0.319, 0.508),
        ),
        architecture="residual 6x64", metadata={"epochs": 10, "train_loss": 1.23456}, **extra,
    )  # fmt: skip


def make_job(job_id: str, kind: str = "train", state: str = "running", **extra: Any) -> JobRow:
    values: dict[str, Any] = {
        "config": "square8_2p", "title": f"{kind} square8_2p", "host": "local", "attempt": f"{job_id}.1",
        "pipeline": "p1", "created_at": ago(minutes=30), "started_at": ago(minutes=20),
    }  # fmt: skip
    return JobRow(id=job_id, kind=kind, state=state, **(values | extra))  # type: ignore[arg-type]


def make_attempt(key: str, phase: str = "running", **extra: Any) -> AttemptRow:
    values: dict[str, Any] = {"started_at": ago(minutes=20), "seen_at": ago(minutes=19), "placed_at": ago(minutes=21)}
    return AttemptRow(key, extra.pop("host", "local"), phase, **(values | extra))


def make_unknown(**extra: Any) -> JobRow:
    """A job of which nobody knows how its second attempt ended, and whose host has fallen silent since."""
    evidence = {
        "folder": True, "exit": False, "lock": False, "executed": True, "alive": False, "marked": 0, "boot_id": "b1",
        "command": {"pid": 4242, "start_time": "81234", "boot_id": "b1"},
    }  # fmt: skip
    first = make_attempt("c8.1", "exited", exit={"code": 3}, reason="exit code 3: no such file", ended_at=ago(hours=2))
    last = make_attempt(
        "c8.2", "unknown", host="cedar-1", evidence=evidence, unreachable_since=ago(minutes=2),
    )  # fmt: skip
    return make_job(
        "c8", "command", "unknown", why="c8.2 was executed, and nobody saw how it ended", host="cedar-1",
        attempt="c8.2", attempts=(first, last), **extra,
    )  # fmt: skip


def make_host(name: str, state: str = "up", **extra: Any) -> HostRow:
    facts = {
        "python_version": "3.11.9", "modules": {"venv": True, "ensurepip": True}, "machine": "x86_64", "cpus": 64,
        "system": "Linux", "kernel": "6.8.0", "libc": "glibc", "libc_version": "2.39", "folder": "/home/me/ringrift",
        "folder_filesystem": "ext4", "folder_writable": True, "tools": {"tar": "/bin/tar"}, "clock_offset_s": 0.01,
        "clock_error_s": 0.02,
    }  # fmt: skip
    gpus = (GpuSample(0, "NVIDIA GH200", 96 * 2**30, 40 * 2**30, 87.0, 61.0),)
    samples = tuple(
        HostSample(ago(seconds=30 * (20 - n)), 3.0 + n, n * 10**10, 5 * 10**11, 9 * 10**11, 10**12, gpus)
        for n in range(20)
    )
    values: dict[str, Any] = {
        "role": "gpu_selfplay", "address": f"ubuntu@{name}.example:22", "facts": facts, "facts_at": ago(minutes=5),
        "seen_at": ago(seconds=30), "latency_ms": 48.0, "samples": samples, "slots": 4, "jobs": 1,
        "fingerprint": "SHA256:Zm9vYmFy",
    }  # fmt: skip
    return HostRow(name, state, **(values | extra))  # type: ignore[arg-type]


def make_hosts() -> tuple[HostRow, ...]:
    trouble = HostTrouble(ago(minutes=2), "no connection: cedar-1 (is it up?)")
    return (
        make_host("local", local=True, role="coordinator", address="", fingerprint=None, slots=1),
        make_host("alder-1"),
        make_host("birch-1", drained="new memory", groups=("gpu",)),
        make_host("cedar-1", "down", why=trouble.text, troubles=(trouble,), changed=("ssh_port: 22 -> 2222",)),
        make_host("dogwood-1", "new", why="its key is not enrolled", facts={}, facts_at=None, seen_at=None,
                  latency_ms=None, samples=(), fingerprint=None),
    )  # fmt: skip


SIZE = 80_000_000
RECEIPT = {"verify": {"sha256": "ab"}, "load": {"result": "loads", "method": "weights_only"}}


def make_delivery(host: str, position: int, state: str = "fetching", **extra: Any) -> DeliveryRow:
    live = state in ("published", "done")
    values: dict[str, Any] = {
        "wave": 0 if position < 3 else 1, "transport": "torrent", "routes": ("torrent", "aria2", "rsync"),
        "attempts": 1,
        "have": SIZE if live else SIZE // 4, "rate": 2e6 if state == "fetching" else 0.0, "started_at": ago(seconds=30),
        "receipt": RECEIPT if live else None,
    }  # fmt: skip
    return DeliveryRow(host, position, state=state, **(values | extra))


def make_transfers() -> tuple[TransferRow, ...]:
    fed = (
        {"name": "head", "down": 1.5e6, "received": 9_000_000},
        {"name": "birch-1", "down": 5e5, "received": 1_000_000},
    )
    hosts = (
        make_delivery("alder-1", 1, "published", live_at=ago(seconds=5), peers=({"name": "head", "received": SIZE},)),
        make_delivery("birch-1", 2, peers=fed, pieces="9" * 20 + "5" * 8 + "0" * 36),
        make_delivery("cedar-1", 3, "queued", transport="rsync", rate=0.0, have=0, failure="no route: a shut port"),
        make_delivery("dogwood-1", 4, "blocked", have=0, failure="disk full: 3.0 MB are free (free some)"),
    )  # fmt: skip
    common: dict[str, Any] = {
        "cause": "promotion", "path": "/data/m.pth", "size": SIZE, "kind": "checkpoint", "paused": None, "by": "ada",
    }  # fmt: skip
    return (
        TransferRow(
            "x1", "square8_2p:v1 to 4 hosts", name="square8_2p.pth", sha256="01" + "ab12cd34" * 8, state="done",
            model="square8_2p:v1", created_at=ago(hours=2), started_at=ago(hours=2), live_at=ago(hours=2, seconds=-9),
            ended_at=ago(hours=1), head_sent=SIZE, hosts=tuple(make_delivery(one.host, 1, "done") for one in hosts),
            **common,
        ),
        TransferRow(
            "x2", "square8_2p:v2 to 4 hosts", name="square8_2p.pth", sha256="02" + "ab12cd34" * 8, state="fetching",
            model="square8_2p:v2", created_at=ago(seconds=40), started_at=ago(seconds=30), head_sent=SIZE * 3 // 2,
            head_rate=3e6, hosts=hosts, **common,
        ),
    )  # fmt: skip


def make_snapshot(**changes: Any) -> Snapshot:
    models = (make_model(2), make_model(1, stage="production"), make_model(1, "hex8_2p", "archived"))
    configs = [ConfigRow(config.key, 0, 200, "empty", models=0) for config in CONFIGS]
    configs[0] = ConfigRow(
        "square8_2p", 312, 200, "ready", 18_432, ago(hours=1), models[0], models[1], models=2, running=1
    )
    configs[6] = ConfigRow("hex8_2p", 120, 200, "scaling", None, None, models[2], None, models=1)
    configs[11] = ConfigRow("hexagonal_4p", None, 200, "unknown", note="games database is locked")
    jobs = (
        make_job(
            "t12",
            host="alder-1",
            attempts=(make_attempt("t12.1", host="alder-1"),),
            progress=JobProgress(710, 1000, "steps", 12.5, 23.2, metrics={"loss": 1.25}, at=NOW),
        ),
        make_job("s11", "selfplay", "done", ended_at=ago(minutes=10), exit_code=0),
        make_job("g13", "gauntlet", "waiting", started_at=None, attempt=None, host=None, why="waits for t12"),
        make_job(
            "s09", "selfplay", "failed", config="hex8_2p", exit_code=137, ended_at=ago(hours=2), why="killed (SIGKILL)"
        ),
    )
    values: dict[str, Any] = {
        "root": "/data/ringrift", "revision": 41, "taken_at": NOW, "configs": tuple(configs), "jobs": jobs,
        "models": models, "hosts": make_hosts(),
        "transfers": make_transfers(),
        "events": tuple(EventRow(n, ago(minutes=60 - n), "JOB_ENDED", f"s{n:02}", {}) for n in range(1, 12)),
        "supervisor": SupervisorRow(True, 4711, ago(hours=3), 4.0, 2),
        "policies": (
            PolicyRow("archival", "dry-run", by="bob@pts/1", at=ago(hours=2), reason="try it"),
            PolicyRow("promotion", "off"), PolicyRow("promotion", "on", "hex8_2p", "ann@pts/2", ago(hours=1)),
        ),
        "needs": (Need("selfplay hex8_2p s09 failed: killed (SIGKILL)", "s09", "jobs", "error"),),
    }  # fmt: skip
    return Snapshot(**(values | changes))


@pytest.fixture
def snapshot() -> Snapshot:
    return make_snapshot()


@pytest.fixture
def build(paths: Paths, snapshot: Snapshot) -> Callable[..., Any]:
    """Makes an app that reads what ``app.source`` holds."""
    from ringrift_console.app import ConsoleApp
    from ringrift_console.clock import Clock
    from ringrift_console.glyphs import ASCII, UTF8

    def make(theme: str = "dark", ascii: bool = False, source: Snapshot | None = None, **options: Any) -> ConsoleApp:
        app: Any = None

        async def reader() -> Snapshot:
            return app.source

        app = ConsoleApp(
            paths, options.pop("settings", None), theme=theme, glyphs=ASCII if ascii else UTF8, reader=reader,
            clock=Clock(lambda: NOW, "utc"), **options,
        )  # fmt: skip
        app.source = source or snapshot
        return app

    return make


@pytest.fixture
def text_of() -> Callable[[Any], list[str]]:
    """The lines that stand on the screen of an app."""

    def read(app: Any) -> list[str]:
        return [strip.text for strip in app.screen._compositor.render_strips()]

    return read


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.write_text("".join(f"line {n}\n" for n in range(100)))
    return path


__all__ = ["NOW", "ago", "make_host", "make_job", "make_model", "make_snapshot", "replace"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What was planned: the action's name and its parameters."""
    from screens import dialogs

    found: list[tuple[str, dict[str, Any]]] = []

    async def make_plan(action: Any, paths: Any, params: dict[str, Any]) -> Plan:
        found.append((action.name, params))
        return Plan(action.name, f"{action.label} {params}", {})

    monkeypatch.setattr(dialogs, "make_plan", make_plan)
    return found
