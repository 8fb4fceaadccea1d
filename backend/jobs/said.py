"""What was said, so that a trouble that lasts does not fill the log."""

from __future__ import annotations

AGAIN_S = 60.0


class Said:
    """Remembers what was said last of each subject."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, float]] = {}

    def is_new(self, subject: str, text: str, now: float) -> bool:
        """Whether to say it: something else was said before, or this a minute ago. Counts it as said then."""
        before = self._last.get(subject)
        if before is not None and before[0] == text and now - before[1] < AGAIN_S:
            return False
        self._last[subject] = (text, now)
        return True
