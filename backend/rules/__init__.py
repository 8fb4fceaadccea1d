"""The game of RingRift on four boards for two to four players, as compiled kernels over flat arrays.

``load(config)`` gives the :class:`~backend.rules.engine.Rules` of a config. This package imports numba only when a
game is needed: names and versions can be read without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.configs import Config

if TYPE_CHECKING:
    from backend.rules.engine import Rules

ENGINE_VERSION = "1"
"""Changes whenever a legal list, a state, a result, the state layout or the move encoding changes."""


def load(config: Config | str, *, quiet: bool = False) -> Rules:
    """The rules of a config or config key; one shared object a process and config.

    The first use on a machine compiles the kernels (a line on stderr says so unless ``quiet``).

    Raises:
        UsageError: there is no such config.
    """
    from backend.rules.engine import load_rules

    return load_rules(config, quiet=quiet)


def warm(*, quiet: bool = False) -> float:
    """Compiles every kernel or loads it from the disk cache; returns the seconds it took."""
    from backend.rules.compiling import compile_all

    return compile_all(quiet=quiet)
