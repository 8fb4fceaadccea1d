"""How soon the Models and the Elo screen answer on a root with many models and matches.

    python benchmarks/models_screen.py [--models 10000] [--matches 1000000] [--root DIR] [--runs 5] [--json]

Makes the root (``benchmarks/models_root.py``) unless it is there, and drives a headless console on it. Medians of:
seconds from the key to the first frame with rows; from a key of the filter to the frame with what matches; from the key
of Elo to the frame with the drawn chart, read for the first time. Beside them the first read of the whole root, and a
calibration in the same run: a fixed piece of interpreter work. Processor time counts all threads of the console.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from ringrift_console.start import prepare_environment

prepare_environment()

from backend.evaluation.records import _known as _known_rates  # noqa: E402
from backend.overview import _rated  # noqa: E402
from backend.paths import Paths  # noqa: E402
from backend.registry.store import _known as _known_rows  # noqa: E402
from benchmarks.calibration import calibrate  # noqa: E402
from benchmarks.models_root import make  # noqa: E402
from ringrift_console.app import ConsoleApp  # noqa: E402
from ringrift_console.clock import Clock  # noqa: E402

PATIENCE_S = 300.0
CPU = ", processor"


def text_of(app: Any) -> str:
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


async def until(pilot: Any, good: Callable[[], bool]) -> None:
    """Waits for a state and draws the frame that shows it."""
    end = time.monotonic() + PATIENCE_S
    while not good():
        if time.monotonic() > end:
            raise TimeoutError(text_of(pilot.app))
        await asyncio.sleep(0.001)
    text_of(pilot.app)


def rows_of(app: Any) -> int:
    """Rows of the table that stand on the screen."""
    found = app.screen.query("#models")
    return len(found.first()._painted) if found else 0


def charted(app: Any, config: str) -> bool:
    """Whether the chart of a config is drawn."""
    screen = app.screen
    return screen.KIND == "elo" and screen.config == config and screen._picture is not None


async def run(root: Path, size: tuple[int, int]) -> dict[str, float]:
    """One console from its start."""
    for cache in (_known_rates, _known_rows, _rated):
        cache.clear()
    app = ConsoleApp(Paths(root), clock=Clock(mode="utc"))
    took: dict[str, float] = {}
    began, used = time.perf_counter(), time.process_time()
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.have_read)
        took["first read"], took["first read" + CPU] = time.perf_counter() - began, time.process_time() - used

        async def timed(name: str, key: str, good: Callable[[], bool]) -> None:
            started, busy = time.perf_counter(), time.process_time()
            app.screen.post_message(_key(key))
            await until(pilot, good)
            took[name], took[name + CPU] = time.perf_counter() - started, time.process_time() - busy

        await timed("models, first paint", "4", lambda: app.current_mode == "models" and rows_of(app) > 0)
        await pilot.press("slash")
        await pilot.pause()
        text, slowest, most = "hex8_3p:v77", 0.0, 0.0
        for n, letter in enumerate(text, 1):
            started, busy = time.perf_counter(), time.process_time()
            app.screen.focused.post_message(_key(letter))
            await until(pilot, lambda n=n: app.screen.main_table.filter.text == text[:n])  # type: ignore[misc]
            slowest = max(slowest, time.perf_counter() - started)
            most = max(most, time.process_time() - busy)
        took["filter, slowest key"], took["filter, slowest key" + CPU] = slowest, most
        await pilot.press("enter")
        await timed("elo, chart", "5", lambda: charted(app, "square8_2p"))
        await timed("elo, another config", "right_square_bracket", lambda: charted(app, "square8_3p"))
    return took


def _key(key: str) -> Any:
    from textual.events import Key

    names = {"right_square_bracket": "]", ":": "colon", "_": "underscore"}
    if key in (":", "_"):
        return Key(names[key], key)
    return Key(key, names.get(key, key))


async def measure(root: Path, runs: int, size: tuple[int, int]) -> dict[str, Any]:
    calibrations, found = [], []
    await run(root, size)  # imports, and the page cache
    for _ in range(runs):
        calibrations.append(calibrate())
        found.append(await run(root, size))
    return {
        "runs": runs,
        "size": f"{size[0]}x{size[1]}",
        "median_s": {name: round(statistics.median(one[name] for one in found), 3) for name in found[0]},
        "calibration_s": round(statistics.median(wall for wall, _ in calibrations), 3),
        "calibration_cpu_s": round(statistics.median(busy for _, busy in calibrations), 3),
        "load_1m": round(os.getloadavg()[0], 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--matches", type=int, default=1_000_000)
    parser.add_argument("--root", type=Path, help="use it, or make it there and keep it")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--size", default="160x50")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        root = (args.root or Path(folder)).absolute()
        if not Paths(root).registry_db.exists():
            make(root, args.models, args.matches, 60)
        result = asyncio.run(measure(root, args.runs, (width, height)))
    if args.json:
        print(json.dumps(result))
        return 0
    print(f"{args.models:,} models, {args.matches:,} matches, {result['size']}, median of {result['runs']} runs, "
          f"load {result['load_1m']}")  # fmt: skip
    print("                            wall   processor")
    for name, seconds in result["median_s"].items():
        if not name.endswith(CPU):
            busy = result["median_s"].get(name + CPU)
            print(f"  {name:<22} {seconds:7.3f} s" + (f" {busy:7.3f} s" if busy is not None else ""))
    print(f"  {'calibration':<22} {result['calibration_s']:7.3f} s {result['calibration_cpu_s']:7.3f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
