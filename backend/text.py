"""Text for people: that of others made harmless for a terminal, and sizes."""

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


def size_text(size: int) -> str:
    """Bytes in the nearest decimal unit, e.g. ``12.3 MB``."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
