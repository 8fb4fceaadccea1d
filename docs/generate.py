"""Writes docs/cli.md, docs/keys.md and docs/settings.md from the actions and settings; ``--check`` only compares.

Run by ``make docs``; a test holds the committed files to what this prints.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
from itertools import pairwise
from pathlib import Path

from backend.errors import Exit
from ringrift_console.actions import ACTIONS, Action, Param
from ringrift_console.keymap import ACCEPT, key_text
from ringrift_console.settings import Settings

DOCS = Path(__file__).parent
_MEANING = {
    Exit.DONE: "done",
    Exit.FAILED: "the work itself failed: a mismatch was found, a job ended badly",
    Exit.USAGE: "wrong usage: an unknown verb, option, config or value",
    Exit.REFUSED: "refused by a gate of the lifecycle",
    Exit.NO_EVIDENCE: "no evidence: nothing to export, no games to judge by",
    Exit.LOCKED: "somebody else holds it (the message says who), or it moved since the plan was made",
    Exit.RESOURCE: "disk, memory or descriptors ran out, or nothing may be written; what was finished before is kept",
    Exit.UNVERIFIED: "truncated, corrupted, or of another checksum",
    Exit.UNTRUSTED: "carries code or pickled objects; nothing of it was executed",
    Exit.SCHEMA: "readable, but of another schema, version or config",
    Exit.SETTINGS: "hosts.yaml or the settings cannot be understood; the message has the line",
    Exit.NOT_FOUND: "no such file, job or model",
    Exit.INTERRUPTED: "interrupted from the keyboard (143: terminated)",
}


def _usage(param: Param) -> str:
    word = param.metavar or param.name.lstrip("-").upper()
    if not param.name.startswith("-"):
        return f"{word}..." if param.repeat == "+" else word
    text = param.name if param.type == "flag" else f"{param.name} {word}"
    return text if param.required else f"[{text}]"


def _verb(action: Action) -> str:
    words = " ".join(("ringrift", *action.verb))
    lines = [
        f"### {words}",
        "",
        f"{action.help}.",
        "",
        "```",
        " ".join((words, *map(_usage, action.params))),
        "```",
        "",
    ]
    if action.params:
        lines += ["| parameter | meaning |", "|---|---|"]
        for param in action.params:
            names = ", ".join(f"`{name}`" for name in (param.name, *param.aliases))
            default = "" if param.default is None else f" (default `{param.default}`)"
            lines.append(f"| {names} | {param.help}{default} |")
        lines.append("")
    return "\n".join(lines)


def cli() -> str:
    """The text of docs/cli.md."""
    codes = "\n".join(f"| {int(code)} | {meaning} |" for code, meaning in _MEANING.items())
    verbs = "\n".join(_verb(action) for action in ACTIONS if action.verb)
    return (
        "# The command line\n\n"
        "Made by `make docs` from the action registry; do not edit.\n\n"
        "Every verb takes `--root DIR`; without it `RINGRIFT_ROOT`, else `$XDG_DATA_HOME/ringrift`. Standard output\n"
        "carries data, standard error the narration. `--json` prints one JSON value.\n\n"
        "## Exit codes\n\n| code | meaning |\n|---|---|\n" + codes + "\n\n## Verbs\n\n" + verbs
    )


def keys() -> str:
    """The text of docs/keys.md."""
    titles = {
        "global": "Everywhere",
        "move": "Moving about",
        "list": "Tables",
        "pulse": "Pulse",
        "hosts": "Hosts",
        "jobs": "Jobs",
        "log": "Log",
        "policies": "On the policies (`A` on Pulse)",
        "models": "Models",
        "elo": "Elo",
        "transfers": "Transfers",
    }
    parts = ["# Keys\n\nMade by `make docs` from the action registry; do not edit. `…` means that a dialog follows.\n"]
    for scope, title in titles.items():
        rows = [action for action in ACTIONS if action.key and action.scope == scope]
        if rows:
            parts.append(f"## {title}\n\n| key | does |\n|---|---|")
            parts += [f"| `{key_texts(action.key)}` | {action.help}{_dialog(action)} |" for action in rows]
            parts.append("")
    parts += [
        "## In a plan dialog\n\n| key | does |\n|---|---|",
        "| `enter`, `esc` or `n` | Cancel: nothing is done |",
        f"| `{ACCEPT}` | Do what is shown; for the gravest actions the name of the object is typed instead |",
        "| `j`, `k` | Scroll the plan |",
        "| `r` | Look again, after the state has moved |\n",
        "Keys can be changed, see [settings](settings.md).",
    ]
    return "\n".join(parts)


def _dialog(action: Action) -> str:
    return " …" if action.plan else ""


def key_texts(keys: str) -> str:
    """All keys of an action as a person reads them."""
    return " or ".join(map(key_text, keys.split(",")))


def settings() -> str:
    """The text of docs/settings.md, from the documentation that stands under each field of the settings."""
    tree = ast.parse(Path(inspect.getfile(Settings)).read_text(encoding="utf-8"))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Settings")
    default = Settings()
    rows = []
    for item, said in pairwise(body):
        if isinstance(item, ast.AnnAssign) and isinstance(said, ast.Expr):
            name = ast.unparse(item.target)
            value = "" if name == "keys" else f"`{json.dumps(getattr(default, name))}`"
            rows.append(f"| `{name}` | {value} | {ast.literal_eval(said.value).replace('``', '`')} |")
    return (
        "# Settings of the console\n\n"
        "Made by `make docs` from `ringrift_console/settings.py`; do not edit.\n\n"
        "They stand in `$XDG_CONFIG_HOME/ringrift/console.toml` (else `~/.config/ringrift/console.toml`). A mistake\n"
        "in it is one line with its place, and exit code 10.\n\n"
        "| setting | default | meaning |\n|---|---|---|\n" + "\n".join(rows) + "\n\n"
        '```toml\ntheme = "ansi"\ntime = "utc"\n\n[keys]\n"jobs.cancel" = "c"\n```\n\n'
        "Names of actions for `[keys]`:\n\n| action | key |\n|---|---|\n"
        + "\n".join(f"| `{action.name}` | `{key_texts(action.key)}` |" for action in ACTIONS if action.key)
    )


def main() -> int:
    pages = {"cli.md": cli(), "keys.md": keys(), "settings.md": settings()}
    wanted = {DOCS / name: text.rstrip() + "\n" for name, text in pages.items()}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv[1:]:
        sys.stderr.write("".join(f"{path.name} is stale: make docs\n" for path in stale))
        return 1 if stale else 0
    for path in stale:
        path.write_text(wanted[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
