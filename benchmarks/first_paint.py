"""How long the console takes from process start to its first full frame, in a real terminal.

Prints seconds of the best and the median run, and the ratio to a process that only imports ``textual.app``, taken in
turn with it, so that the ratio means the same on a busy machine.

    python benchmarks/first_paint.py [--runs 7] [--size 80x24] [--json]
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
LAST_WORD = b"quit"  # the end of the footer, drawn last


def paint(size: tuple[int, int], root: str) -> float:
    """Seconds until the first frame of the console is complete."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    environment = os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    command = [sys.executable, "-m", "ringrift_console.start", "--root", root]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, cwd=REPOSITORY, env=environment)
    try:
        output = b""
        while LAST_WORD not in output:
            if not select.select([master], [], [], 30)[0]:
                raise TimeoutError("no frame within 30 s")
            output += os.read(master, 65536)
        return time.perf_counter() - began
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)


def bare_import() -> float:
    """Seconds of a process that imports Textual's app and ends."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import textual.app"], check=True)
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--size", default="80x24")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    frames, imports = [], []
    with tempfile.TemporaryDirectory() as root:
        paint((width, height), root)  # byte-compiles and warms the page cache
        bare_import()
        for _ in range(args.runs):
            frames.append(paint((width, height), root))
            imports.append(bare_import())
    result = {
        "size": args.size,
        "runs": args.runs,
        "best_s": round(min(frames), 3),
        "median_s": round(statistics.median(frames), 3),
        "import_median_s": round(statistics.median(imports), 3),
        "ratio": round(statistics.median(f / i for f, i in zip(frames, imports, strict=True)), 2),
        "load_1m": round(os.getloadavg()[0], 2),
    }
    if args.json:
        print(json.dumps(result))
    else:
        print(
            f"first frame at {args.size}: best {result['best_s']} s, median {result['median_s']} s of {args.runs};"
            f" import textual.app {result['import_median_s']} s; ratio {result['ratio']}; load {result['load_1m']}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
