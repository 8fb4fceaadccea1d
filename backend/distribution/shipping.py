"""Makes one program out of modules of ours, for a Python on a host that has nothing but its standard library."""

from __future__ import annotations

import json
from functools import cache
from importlib import import_module
from pathlib import Path

_BOOT = """\
import json, os, sys, types
for name, text in json.loads({sources!r}):
    for count in range(1, name.count(".") + 1):
        package = ".".join(name.split(".")[:count])
        sys.modules.setdefault(package, types.ModuleType(package))
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
code = module.main()
sys.stdout.flush()
os._exit(code)
"""


@cache
def program(*names: str) -> bytes:
    """The text of a program: these modules in order, then ``main()`` of the last one.

    It ends at once with ``main``: a thread may still wait for standard input, and Python would wait for that.
    """
    sources = [(name, Path(str(import_module(name).__file__)).read_text()) for name in names]
    return _BOOT.format(sources=json.dumps(sources)).encode()
