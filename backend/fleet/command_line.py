"""Commands as one line for a login shell that nobody knows."""

from __future__ import annotations

import shlex
import string
from collections.abc import Sequence

_PLAIN = frozenset(string.ascii_letters + string.digits + "_@+=:,./-")


def command_line(argv: Sequence[str]) -> str:
    """``argv`` for whatever login shell the host has.

    Plain words are left alone. For all others, sh gets the words in octal: quotes, backslashes, ``!`` and newlines
    mean different things to sh, csh and fish.
    """
    if not argv or any("\0" in word for word in argv):
        raise ValueError("a command is words without NUL")
    if all(word and set(word) <= _PLAIN for word in argv):
        return "exec " + " ".join(argv)
    script = "exec " + shlex.join(argv)
    coded = "".join(sign if sign in _PLAIN else _octal(sign) for sign in script)
    return f'exec /bin/sh -c \'eval "$(printf %b "{coded}")"\''


def _octal(sign: str) -> str:
    return "".join(f"\\0{byte:03o}" for byte in sign.encode(errors="surrogateescape"))
