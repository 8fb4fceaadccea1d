"""What a filter line means: all its words must match, ``!word`` must not, ``column=word`` looks in one column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Filter:
    """A parsed filter. Letters match in either case; a column may be named by its beginning."""

    text: str

    @property
    def active(self) -> bool:
        return bool(self.text.strip())

    def narrows(self, other: Filter) -> bool:
        """True when this is the other one with more letters, so that it can only show fewer rows."""
        return other.active and self.text.startswith(other.text) and not set(self.text) & set("!=")

    def matches(self, fields: Mapping[str, str]) -> bool:
        """True when a row with these fields (lower-case names) is to be shown."""
        return self.select([{name: text.lower() for name, text in fields.items()}])[0]

    def select(self, rows: Sequence[Mapping[str, str]]) -> list[bool]:
        """For every row whether it is to be shown; names and texts of the fields are in lower case."""
        terms = self.text.lower().split()
        return [all(_term(term, fields) for term in terms) for fields in rows]


def _term(term: str, fields: Mapping[str, str]) -> bool:
    if term.startswith("!") and len(term) > 1:
        return not _term(term[1:], fields)
    column, equals, word = term.partition("=")
    if equals and column:
        return any(word in text for name, text in fields.items() if name.startswith(column))
    return any(term in text for text in fields.values())
