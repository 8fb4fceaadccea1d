"""Named moments at which a test can have this process killed, to see that what follows a crash is right."""

from __future__ import annotations

import os
import signal

CRASH_VARIABLE = "RINGRIFT_CRASH_AT"


def crash_point(name: str) -> None:
    """Dies by SIGKILL here when the environment asks for it; costs one lookup otherwise."""
    if os.environ.get(CRASH_VARIABLE) == name:
        os.kill(os.getpid(), signal.SIGKILL)
