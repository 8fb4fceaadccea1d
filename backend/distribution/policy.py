"""What is distributed and mended without being asked: ``distribution.toml`` under the root, all of it optional.

models = true           # a promoted or rolled-back model goes to all hosts
datasets = true         # exported and newly found datasets go to hosts with GPUs
repair = false          # files on hosts that differ from their receipts are brought again
audit_minutes = 60      # between two looks at what hosts hold; 0 for never
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from backend.errors import SettingsError

FILE = "distribution.toml"


@dataclass(frozen=True, slots=True)
class Policy:
    models: bool = True
    datasets: bool = True
    repair: bool = False
    audit_minutes: float = 60.0


def read_policy(root: Path) -> Policy:
    """The policy of a root; the defaults where it has none.

    Raises:
        SettingsError: the file cannot be understood.
    """
    path = root / FILE
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Policy()
    except (OSError, ValueError) as error:
        raise SettingsError("cannot read the policy of distribution", where=str(path), hint=str(error)) from None
    known = {one.name: type(one.default) for one in fields(Policy)}
    for name, value in values.items():
        if name not in known:
            raise SettingsError(f"'{name}' is no setting", where=str(path), hint="one of " + " ".join(known))
        number = known[name] is float and isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
        if not number and not (known[name] is bool and isinstance(value, bool)):
            wanted = "true or false" if known[name] is bool else "a number from 0"
            raise SettingsError(f"'{name}' must be {wanted}", where=str(path))
    return Policy(**values)
