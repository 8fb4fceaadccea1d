"""``python -m backend.jobs.check ROOT KIND CONFIG PARAMS``: is the output of such a job there and valid?

A process of its own, because the answer may need NumPy and seconds of hashing, and the supervisor's loop has neither.
Prints ``{"satisfied": reason or null}``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backend.jobs.recipes import environment, satisfied
from backend.paths import Paths


async def check_output(paths: Paths, kind: str, config: str, params: Mapping[str, Any]) -> str | None:
    """:func:`backend.jobs.recipes.satisfied` in a process of its own; None too when that process fails."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "backend.jobs.check",
        str(paths.root),
        kind,
        config,
        json.dumps(dict(params)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env=dict(os.environ) | environment(),
    )
    try:
        out, _ = await process.communicate()
    except BaseException:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    if process.returncode != 0:
        sys.stderr.write(f"check of {kind} {config} ended with {process.returncode}\n")
        return None
    reason = json.loads(out)["satisfied"]
    return None if reason is None else str(reason)


def main(argv: list[str]) -> int:
    root, kind, config, params = argv
    sys.stdout.write(json.dumps({"satisfied": satisfied(Paths(Path(root)), kind, config, json.loads(params))}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
