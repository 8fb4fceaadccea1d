"""The import contracts: which part of the house may know which other."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What a package may import of ours. A longer prefix wins over a shorter one.
COMMON = {
    "backend.errors", "backend.configs", "backend.paths", "backend.atomic", "backend.locks", "backend.progress",
    "backend.thresholds", "backend.snapshot", "backend.plans", "backend.crash", "backend.databases",
    "backend.pool", "backend.text",
}  # fmt: skip
ALLOWED: dict[str, set[str]] = {
    "backend": COMMON,
    "backend.rules": {"backend.configs", "backend.errors", "backend.rules"},
    "backend.players": COMMON | {"backend.players", "backend.rules", "backend.training", "backend.registry"},
    "backend.training": COMMON | {"backend.training", "backend.players", "backend.rules", "backend.registry"},
    "backend.evaluation": COMMON
    | {"backend.evaluation", "backend.players", "backend.rules", "backend.registry", "backend.training"},
    "backend.evaluation.statistics": set(),
    "backend.evaluation.stats": {"backend.evaluation.stats"},
    "backend.evaluation.verdict": {"backend.thresholds", "backend.evaluation.stats", "backend.evaluation.statistics"},
    "backend.evaluation.rating_spec": set(),
    "backend.evaluation.ratings": {"backend.evaluation.ratings", "backend.evaluation.rating_spec"}
    | {f"backend.evaluation.ratings_{part}" for part in ("choices", "newton", "check")},
    "backend.evaluation.pairing": {"backend.evaluation.ratings", "backend.evaluation.ratings_choices"},
    "backend.evaluation.ratings_choices": set(),
    "backend.evaluation.ratings_newton": {"backend.evaluation.ratings_choices"},
    "backend.evaluation.ratings_check": {"backend.evaluation.ratings_choices"},
    "backend.state": COMMON | {"backend.state"},
    "backend.fleet": COMMON | {"backend.fleet", "backend.state"},
    "backend.registry": COMMON | {"backend.registry", "backend.state"},
    **{
        f"backend.registry.{name}": COMMON | {"backend.registry", "backend.state", "backend.evaluation"}
        for name in ("promotion", "history", "policy_facts")  # what judges by match records
    },
    "backend.jobs": COMMON
    | {"backend.jobs", "backend.state", "backend.fleet", "backend.registry", "backend.training", "backend.evaluation"},
    "backend.jobs.agent": set(),
    "backend.distribution": COMMON | {"backend.distribution", "backend.state", "backend.fleet", "backend.registry"},
    "backend.distribution.states": {"backend.distribution.reasons"},
    "backend.distribution.reasons": set(),
    "backend.distribution.receiver": set(),
    "backend.distribution.loadable": set(),
    "backend.supervisor": {"backend"},
    "backend.overview": {"backend"},
    "screens": {"backend", "screens", "ringrift_console"},
    "ringrift_console": {"backend", "screens", "ringrift_console"},
}
HEAVY = ("torch", "numba", "numpy", "textual", "asyncssh", "libtorrent")


def modules() -> list[tuple[str, Path]]:
    found = []
    for top in ("backend", "screens", "ringrift_console"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            if parts[-1] == "__init__":
                parts.pop()
            found.append((".".join(parts), path))
    return found


def imports_of(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports, also inside functions, but not for typing only."""
    names: set[str] = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in {path}"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def rule_for(module: str) -> set[str]:
    best = max((prefix for prefix in ALLOWED if within(module, prefix)), key=len)
    return ALLOWED[best]


@pytest.mark.parametrize(("module", "path"), modules(), ids=[name for name, _ in modules()])
def test_a_module_imports_only_what_its_place_allows(module: str, path: Path) -> None:
    allowed = rule_for(module)
    ours = {name for name in imports_of(path) if name.split(".")[0] in ("backend", "screens", "ringrift_console")}
    packages = {"backend", "screens", "ringrift_console"}
    for name in sorted(ours - packages):
        assert any(within(name, prefix) for prefix in allowed), f"{module} may not import {name}"


@pytest.mark.parametrize(("module", "path"), modules(), ids=[name for name, _ in modules()])
def test_the_backend_knows_no_screen_and_only_one_module_knows_ssh(module: str, path: Path) -> None:
    names = {name.split(".")[0] for name in imports_of(path)}
    if module.startswith("backend"):
        assert not names & {"textual", "screens", "ringrift_console"}
    if module != "backend.fleet.ssh":
        assert "asyncssh" not in names
    if module == "backend.jobs.agent":
        assert names <= set(sys.stdlib_module_names)


@pytest.mark.parametrize(
    "statement",
    [
        "from ringrift_console.cli import build_parser; build_parser()",
        "import backend.overview",
        "import backend.evaluation.verdict",
        "import backend.supervisor",
        "import ringrift_console.verbs.jobs, ringrift_console.verbs.registry, ringrift_console.verbs.status",
    ],
)
def test_light_entry_points_load_nothing_heavy(statement: str) -> None:
    code = f"import sys; {statement}; print(*sorted({set(HEAVY)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == []
