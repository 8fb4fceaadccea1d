"""``ringrift doctor`` and ``adopt``, and how ratings of an ai-service are printed."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING

from backend.configs import parse_config
from backend.errors import Exit
from backend.paths import Paths
from backend.text import plain
from ringrift_console.verbs.common import table, to_json

if TYPE_CHECKING:
    from backend.reference.rating import Recomputed


def doctor(args: argparse.Namespace, paths: Paths) -> int:
    """Examines the root; exit code 0 when there is nothing but notes, 7 when something does not hold."""
    from backend.reference.doctor import examine

    config = parse_config(args.config).key if args.config else None
    report = examine(paths, config, _progress)
    if args.json:
        print(to_json(dataclasses.asdict(report) | {"clean": report.clean}))
    else:
        print(f"{report.models} models ({report.adopted} of them kept here), {report.matches} foreign match records")
        for one in report.findings:
            print(f"\n{one.severity} {one.kind}: {one.count}; {one.what}")
            for example in one.examples:
                print(f"  {plain(example)}")
            print(f"  -> {one.remedy}")
        if not report.findings:
            print("nothing found")
    return Exit.DONE if report.clean else Exit.UNVERIFIED


def adopt(args: argparse.Namespace, paths: Paths) -> int:
    """Adopts what can be, or takes the last adoption back."""
    from backend.reference.adopt import plan_adopt
    from ringrift_console.verbs.operations import carry_out

    return carry_out(args, paths, plan_adopt(paths, undo=args.undo))


def _progress(path: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{plain(path)[:70]}\r")


def beside_text(found: Recomputed) -> str:
    """Recomputed ratings beside the stored ones."""
    rows = []
    for row in found.players:
        for n, stored in enumerate(row.stored or (None,)):
            first = n == 0
            rows.append(
                (
                    (row.player if len(row.player) < 40 else row.player[:12] + row.player[64:]) if first else "",
                    stored.participant if stored else " ".join(row.names[:2]),
                    ("-" if row.elo is None else f"{row.elo:.0f}") if first else "",
                    ("pinned" if row.pinned else "-" if row.low is None else f"{row.low:.0f}..{row.high:.0f}")
                    if first else "",
                    str(row.games) if first else "",
                    f"{stored.rating:.0f}" if stored else "-",
                    str(stored.games) if stored else "-",
                    ("-" if row.difference is None else f"{row.difference:+.0f}") if first else "",
                )
            )  # fmt: skip
    lines = [
        f"{found.config} in the ai-service's own records: {found.used} matches rated anew, and what it had stored",
        table(("PLAYER", "NAME THERE", "ELO", "95 %", "GAMES", "STORED", "GAMES", "DIFFERENCE"), rows),
        f"difference: recomputed minus (stored {found.shift:+.0f}), as Heuristic is held there {found.shift:.0f} lower",
    ]
    lines += [f"left out: {count} {flaw} (ringrift doctor)" for flaw, count in found.left_out.items()]
    return "\n".join(lines)
