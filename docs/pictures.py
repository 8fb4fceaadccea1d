"""Pictures of every screen, made by the program itself from a real root.

    python docs/pictures.py --root DIR [--out docs/pictures] [--only NAME ...]

Nothing is changed under the root: dialogs are opened and left.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from backend.paths import Paths
from ringrift_console.start import prepare_environment

prepare_environment()

from ringrift_console.app import ConsoleApp  # noqa: E402  Textual reads the environment when it is imported
from ringrift_console.clock import Clock  # noqa: E402
from ringrift_console.glyphs import ASCII, UTF8  # noqa: E402

PICTURES: dict[str, tuple[str, ...]] = {
    "pulse": (),
    "plan": ("p", "enter"),
    "hosts": ("2",),
    "host": ("2", "d"),
    "jobs": ("3",),
    "job": ("3", "d"),
    "log": ("3", "l"),
    "models": ("4",),
    "model": ("4", "d"),
    "criteria": ("4", "c"),
    "elo": ("5",),
    "configs": ("5", "v"),
    "matrix": ("5", "v", "v"),
    "transfers": ("6",),
    "help": ("question_mark",),
}
"""Pictures and the keys that lead there from Pulse."""
SIZES = {"80x24": (80, 24), "160x50": (160, 50)}
ONLY_NARROW = {"model", "host", "job", "help", "plan", "criteria", "configs", "matrix"}


async def take(root: Path, name: str, size: tuple[int, int], target: Path, *, plain: bool = False) -> None:
    """One picture."""
    app = ConsoleApp(
        Paths(root), theme="mono" if plain else "dark", glyphs=ASCII if plain else UTF8, clock=Clock(mode="utc")
    )
    async with app.run_test(size=size) as pilot:
        while not app.have_read:
            await pilot.pause(0.05)
        for key in PICTURES[name]:
            await pilot.press(key)
            await pilot.pause(0.5)
        await pilot.pause(0.5)
        for _ in range(600):  # what a thread reads comes when it is read
            if not any("reading" in strip.text for strip in app.screen._compositor.render_strips()):
                break
            await pilot.pause(0.1)
        await asyncio.to_thread(target.write_text, app.export_screenshot(title=f"RingRift Console: {name}"))


async def main() -> int:
    parser = argparse.ArgumentParser(description="Pictures of every screen, from a real root.")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "pictures")
    parser.add_argument("--only", nargs="+", choices=sorted(PICTURES), help="only these")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.only or PICTURES:
        for label, size in SIZES.items():
            if label == "80x24" or name not in ONLY_NARROW:
                await take(args.root.absolute(), name, size, args.out / f"{name}-{label}.svg")
    if args.only is None:
        await take(args.root.absolute(), "pulse", SIZES["80x24"], args.out / "pulse-ascii.svg", plain=True)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
