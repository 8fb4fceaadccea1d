"""The real program in a real terminal: what it sends when idle, when nobody reads, when the terminal goes away."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backend.configs import parse_config
from backend.jobs.pipelines import PipelineParams, add_chain, stages
from backend.paths import Paths
from backend.state.store import StateStore
from ringrift_console.writer import RESET

REPOSITORY = Path(__file__).parents[2]
FIRST_FRAME = b"quit"  # the last word of the footer
PATIENCE_S = 60.0  # a limit against hanging, not a measure


class Terminal:
    """A pseudo terminal with a program in it; its reader reads only when told to."""

    def __init__(self, command: list[str], size: tuple[int, int], *, ignore_hang_up: bool = False) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        self.before = termios.tcgetattr(slave)
        environment = os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor", "PYTHONPATH": str(REPOSITORY)}

        def prepare() -> None:
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            if ignore_hang_up:
                signal.signal(signal.SIGHUP, signal.SIG_IGN)

        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, preexec_fn=prepare, env=environment, cwd=REPOSITORY
        )
        self.slave = slave
        self.output = b""

    def read(self, seconds: float) -> bytes:
        """What arrives within ``seconds``."""
        data, until = b"", time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if not select.select([self.master], [], [], left)[0]:
                break
            data += os.read(self.master, 65536)
        self.output += data
        return data

    def wait_for(self, text: bytes) -> None:
        until = time.monotonic() + PATIENCE_S
        while text not in self.output:
            assert time.monotonic() < until, f"{text!r} never came: {self.output[-2000:]!r}"
            assert self.process.poll() is None, self.output[-3000:].decode(errors="replace")
            self.read(0.1)

    def send(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def hang_up(self) -> None:
        os.close(self.slave)
        os.close(self.master)
        self.master = self.slave = -1

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for descriptor in (self.master, self.slave):
            if descriptor >= 0:
                os.close(descriptor)


@pytest.fixture
def open_terminal() -> Iterator[Callable[..., Terminal]]:
    terminals: list[Terminal] = []

    def make(command: list[str], size: tuple[int, int] = (80, 24), **options: bool) -> Terminal:
        terminals.append(Terminal(command, size, **options))
        return terminals[-1]

    yield make
    for terminal in terminals:
        terminal.close()


def console(paths: Paths, *options: str) -> list[str]:
    return [sys.executable, "-m", "ringrift_console.start", "--root", str(paths.root), *options]


@pytest.mark.parametrize("size", [(80, 24), (160, 50)], ids=["80x24", "160x50"])
def test_an_idle_pulse_sends_less_than_200_bytes_a_second(
    size: tuple[int, int], paths: Paths, open_terminal: Callable[..., Terminal]
) -> None:
    terminal = open_terminal(console(paths), size)
    terminal.wait_for(b"nothing runs")
    terminal.read(1.5)
    seconds = 3.0
    assert len(terminal.read(seconds)) < 200 * seconds


@pytest.mark.parametrize("options", [["--theme", "mono"], ["--theme", "ansi"]], ids=["mono", "ansi"])
def test_without_true_colour_none_is_sent(
    options: list[str], paths: Paths, open_terminal: Callable[..., Terminal]
) -> None:
    terminal = open_terminal(console(paths, "--ascii", *options))
    terminal.wait_for(b"nothing runs")
    terminal.send(b"3")
    terminal.wait_for(b"no jobs yet")
    assert b"38;2" not in terminal.output
    assert b"48;2" not in terminal.output
    assert terminal.output.isascii()
    if "mono" in options:
        assert not any(f"\x1b[{n}m".encode() in terminal.output for n in [*range(30, 38), *range(40, 48)])


def test_q_leaves_and_puts_the_terminal_back(paths: Paths, open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal(console(paths))
    terminal.wait_for(FIRST_FRAME)
    terminal.send(b"q")
    terminal.read(1.0)
    while terminal.process.poll() is None:
        terminal.read(0.2)
    assert terminal.process.returncode == 0
    terminal.read(0.2)
    assert b"\x1b[?1049l" in terminal.output
    assert termios.tcgetattr(terminal.slave) == terminal.before


def test_a_request_to_end_puts_the_terminal_back(paths: Paths, open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal(console(paths))
    terminal.wait_for(FIRST_FRAME)
    terminal.process.send_signal(signal.SIGTERM)
    while terminal.process.poll() is None:
        terminal.read(0.2)
    terminal.read(0.2)
    assert terminal.process.returncode == 128 + signal.SIGTERM
    assert RESET.encode() in terminal.output
    assert termios.tcgetattr(terminal.slave) == terminal.before


@pytest.mark.parametrize("ignore", [False, True], ids=["hang-up", "hang-up ignored"])
def test_a_console_whose_terminal_goes_away_ends(
    ignore: bool, paths: Paths, open_terminal: Callable[..., Terminal]
) -> None:
    terminal = open_terminal(console(paths), ignore_hang_up=ignore)
    terminal.wait_for(b"nothing runs")
    terminal.hang_up()
    assert terminal.process.wait(PATIENCE_S) == 128 + signal.SIGHUP


def test_a_stalled_terminal_that_is_told_to_end_ends(paths: Paths, open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal([sys.executable, "-c", BUSY, str(paths.root)], (160, 50))
    terminal.wait_for(FIRST_FRAME)
    wait_for_beats(terminal, paths, 20)
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.process.wait(PATIENCE_S) == 128 + signal.SIGTERM


BUSY = """
import asyncio, dataclasses, sys
from pathlib import Path
from backend.configs import parse_config
from backend.jobs.pipelines import PipelineParams, add_chain, stages
from backend.paths import Paths
from backend.state.store import StateStore
from backend.snapshot import Need
from ringrift_console.app import ConsoleApp
from ringrift_console.settings import Settings

paths = Paths(Path(sys.argv[1]))
paths.root.mkdir(parents=True, exist_ok=True)
turn = 0

async def reader():
    global turn
    turn += 1
    needs = tuple(Need(f"turn {turn} " + chr(65 + (turn + n) % 26) * 130, str(n), "jobs") for n in range(40))
    app.say(chr(97 + turn % 26) * 150)
    return dataclasses.replace(app.snapshot, revision=turn, needs=needs)

async def beat():
    while True:
        with (paths.root / "beats").open("a") as stream:
            stream.write(".")
        if app.link_slow:
            (paths.root / "left-out").touch()
        await asyncio.sleep(0.05)

class Busy(ConsoleApp):
    period = 0.02
    async def on_mount(self):
        self.beats = asyncio.create_task(beat())

app = Busy(paths, Settings(), reader=reader)
sys.exit(app.run(mouse=False) or 0)
"""


def wait_for_beats(terminal: Terminal, paths: Paths, more: int) -> None:
    """Waits, without reading the terminal, until the loop has beaten ``more`` times again."""
    beats = paths.root / "beats"
    start, until = beats.stat().st_size, time.monotonic() + PATIENCE_S
    while beats.stat().st_size < start + more:
        assert time.monotonic() < until, "the event loop stands still"
        assert terminal.process.poll() is None
        time.sleep(0.05)


def test_a_terminal_that_stops_reading_does_not_stop_the_loop(
    paths: Paths, open_terminal: Callable[..., Terminal]
) -> None:
    terminal = open_terminal([sys.executable, "-c", BUSY, str(paths.root)], (160, 50))
    terminal.wait_for(FIRST_FRAME)
    # Unread, a frame every 20 ms fills the terminal's buffer and the backlog, and more.
    while not (paths.root / "left-out").exists():
        wait_for_beats(terminal, paths, 1)
    wait_for_beats(terminal, paths, 40)
    # Read again, the headings come anew: left-out frames are made good by drawing the whole screen.
    terminal.output = b""
    terminal.wait_for(b"CONFIG")
    terminal.wait_for(FIRST_FRAME)
    terminal.send(b"q")
    while terminal.process.poll() is None:
        terminal.read(0.2)
    assert terminal.process.returncode == 0, terminal.output[-3000:].decode("utf-8", "replace")


def test_the_console_imports_nothing_heavy(paths: Paths, open_terminal: Callable[..., Terminal]) -> None:
    code = (
        "import sys, ringrift_console.start as start\n"
        "import ringrift_console.app as app\n"
        "end = app.ConsoleApp.do_quit\n"
        "def quit(self):\n"
        "    heavy = {'torch', 'numba', 'numpy', 'asyncssh', 'libtorrent', 'plotext'} & set(sys.modules)\n"
        "    print('HEAVY', sorted(heavy), self.have_read, file=open(sys.argv[3], 'w'))\n"
        "    end(self)\n"
        "app.ConsoleApp.do_quit = quit\n"
        "sys.exit(start.main(sys.argv[1:3]))\n"
    )
    paths.root.mkdir(parents=True)
    told = paths.root / "told"
    terminal = open_terminal([sys.executable, "-c", code, "--root", str(paths.root), str(told)])
    terminal.wait_for(b"nothing runs")
    terminal.wait_for(b"supervisor idle")  # which is known once the root was read
    for keys, answer in ((b"3", b"no jobs yet"), (b"4", b"no models yet"), (b"1", b"nothing runs")):
        terminal.output = b""
        terminal.send(keys)
        terminal.wait_for(answer)
    terminal.send(b"q")
    while terminal.process.poll() is None:
        terminal.read(0.2)
    assert told.read_text().strip() == "HEAVY [] True"


async def chain(paths: Paths) -> None:
    """A pipeline as the supervisor would have written it; nothing carries it out."""
    async with await StateStore.open(paths) as store, store.database.write() as db:
        params = PipelineParams(games=20)
        await add_chain(db, "hex8_2p", stages(parse_config("hex8_2p"), params), {}, None)


def test_killed_and_opened_again_it_shows_the_same(paths: Paths, open_terminal: Callable[..., Terminal]) -> None:
    asyncio.run(chain(paths))
    pages = []
    for _ in range(2):
        terminal = open_terminal(console(paths))
        terminal.wait_for(b"selfplay hex8_2p")
        terminal.output = b""
        terminal.send(b"3")
        terminal.wait_for(b"gauntlet")
        terminal.read(1.0)
        text = re.sub(rb"\x1b\[[\d;]*[a-zA-Z]| ", b"", terminal.output)
        assert b"supervisordown,4jobswait" in text
        pages.append(re.findall(rb"(waiting)([a-z]\d)(selfplay|export|train|gauntlet)(hex8_2p)", text)[:4])
        terminal.process.kill()
        terminal.process.wait()
    assert [kind for _, _, kind, _ in pages[0]] == [b"selfplay", b"export", b"train", b"gauntlet"]
    assert pages[0] == pages[1]


def test_without_a_terminal_the_status_is_printed(paths: Paths) -> None:
    done = subprocess.run(
        console(paths), stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "square8_2p" in done.stdout
    assert "\x1b" not in done.stdout


def test_settings_that_make_no_sense_are_one_line_and_exit_code_10(
    tmp_path: Path, paths: Paths, open_terminal: Callable[..., Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "ringrift").mkdir()
    (tmp_path / "ringrift" / "console.toml").write_text('theme = "pink"\n')
    terminal = open_terminal(console(paths))
    while terminal.process.poll() is None:
        terminal.read(0.2)
    terminal.read(0.2)
    assert terminal.process.returncode == 10
    assert b"theme = 'pink'" in terminal.output
    assert b"Traceback" not in terminal.output
