"""``ringrift-console``: the console in a terminal; without one, the status on one page."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys

from backend.errors import Exit, RingRiftError
from backend.paths import resolve_root
from ringrift_console import __version__


def build_parser() -> argparse.ArgumentParser:
    """The options of the console."""
    parser = argparse.ArgumentParser(prog="ringrift-console", description="Operations console for RingRift models.")
    parser.add_argument("--root", metavar="DIR", help="where all data lies (RINGRIFT_ROOT)")
    parser.add_argument("--theme", choices=("auto", "dark", "light", "ansi", "mono"), help="colours; default auto")
    parser.add_argument("--ascii", action="store_true", help="draw with ASCII only")
    parser.add_argument("--version", action="version", version=f"ringrift-console {__version__}")
    return parser


def prepare_environment() -> None:
    """What Textual reads from the environment when it is imported: no animation, few frames, quick escape."""
    over_ssh = bool(os.environ.get("SSH_CONNECTION"))
    for name, value in {
        "TEXTUAL_ANIMATIONS": "none",
        "TEXTUAL_SMOOTH_SCROLL": "0",
        "TEXTUAL_FPS": "15" if over_ssh else "30",
        "ESCDELAY": "50",
    }.items():
        os.environ.setdefault(name, value)


def main(argv: list[str] | None = None) -> int:
    """Runs the console; returns its exit code."""
    args = build_parser().parse_args(argv)
    paths = resolve_root(args.root)
    if not (sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()):
        from ringrift_console.cli import main as run_verb

        return run_verb(["status", "--root", str(paths.root)])
    try:
        return _run(args, paths.root)
    except RingRiftError as error:
        sys.stderr.write(f"ringrift-console: {error.line()}\n")
        return int(error.exit_code)


def _run(args: argparse.Namespace, root: os.PathLike[str]) -> int:
    from ringrift_console.settings import read_settings

    settings = read_settings()
    prepare_environment()

    from ringrift_console.app import ConsoleApp
    from ringrift_console.glyphs import choose_glyphs
    from ringrift_console.look import choose_theme

    theme = choose_theme(args.theme or settings.theme)
    if theme == "mono":
        os.environ["NO_COLOR"] = "1"
    app = ConsoleApp(
        resolve_root(root), settings, theme=theme, glyphs=choose_glyphs(force_ascii=args.ascii or settings.ascii)
    )
    with _saved_terminal():
        code = app.run(mouse=settings.mouse)
    return int(Exit.DONE) if code is None else code


def _saved_terminal() -> contextlib.ExitStack:
    """A stack whose closing puts the terminal's settings back as they are now, whatever the app did to them."""
    import termios

    from ringrift_console.writer import reset_terminal

    stack = contextlib.ExitStack()
    descriptor = sys.stdin.fileno()
    saved = termios.tcgetattr(descriptor)

    def put_back() -> None:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSANOW, saved)
        reset_terminal(sys.__stderr__.fileno() if sys.__stderr__ else 2)

    stack.callback(put_back)
    return stack


if __name__ == "__main__":
    sys.exit(main())
