"""Text of others made harmless for a terminal."""

from __future__ import annotations


def plain(text: str) -> str:
    """``text`` on one line, with everything that is no printable character written out, e.g. ``\\x1b``.

    Names in databases, file names and messages may hold escape sequences, which a terminal would obey, characters
    that turn the direction of writing, and bytes that are no UTF-8, which it could not even be sent.
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else _written_out(sign) for sign in text)


def _written_out(sign: str) -> str:
    return sign.encode("unicode_escape", "surrogatepass").decode("ascii")
