"""``python -m tests.lab.own_server FOLDER ADDRESS PORT SHELL``: asyncssh's server as a host, where there is no sshd.

As sshd, it runs commands with the login shell in sessions of their own, which outlive the connection. The line ``cut``
on standard input ends all connections; their number comes back.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import asyncssh

connections: set[asyncssh.SSHServerConnection] = set()


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class Server(asyncssh.SSHServer):
    """Lets in whoever has the key, and lets them go on to other hosts; says what sshd says."""

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        connections.discard(self._connection)
        say(f"Connection closed by the other side ({exc})")

    def begin_auth(self, username: str) -> bool:
        if username != pwd.getpwuid(os.getuid()).pw_name:
            self._connection.set_authorized_keys(asyncssh.import_authorized_keys(""))
        return True

    def auth_completed(self) -> None:
        say("Accepted publickey")

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        return True


async def feed(process: asyncssh.SSHServerProcess[bytes], child: asyncio.StreamWriter) -> None:
    with suppress(OSError, asyncssh.Error):
        while block := await process.stdin.read(65536):
            child.write(block)
            await child.drain()
    child.close()


async def bring(child: asyncio.StreamReader, out: asyncssh.SSHWriter[bytes]) -> None:
    with suppress(OSError, asyncssh.Error):
        while block := await child.read(65536):
            out.write(block)
            await out.drain()


async def run(process: asyncssh.SSHServerProcess[bytes], shell: str, home: Path) -> None:
    """Runs a command; where the connection goes, the command stays."""
    words = [shell, "-c", process.command] if process.command else [shell]
    child = await asyncio.create_subprocess_exec(
        *words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=home,
        env=os.environ | {"HOME": str(home)},
        start_new_session=True,
    )
    assert child.stdin is not None and child.stdout is not None and child.stderr is not None
    feeding = asyncio.create_task(feed(process, child.stdin))
    await asyncio.gather(bring(child.stdout, process.stdout), bring(child.stderr, process.stderr))
    code = await child.wait()
    feeding.cancel()
    if code < 0:
        process.exit_with_signal(signal.Signals(-code).name.removeprefix("SIG"))
    else:
        process.exit(code)


async def main(folder: Path, address: str, port: int, shell: str) -> None:
    async def started(process: asyncssh.SSHServerProcess[bytes]) -> None:
        await run(process, shell, folder / "home")

    await asyncssh.listen(
        address,
        port,
        server_factory=Server,
        server_host_keys=[str(folder / "host_key")],
        authorized_client_keys=str(folder / "authorized"),
        process_factory=started,
        encoding=None,
        keepalive_interval=0,
    )
    loop = asyncio.get_running_loop()

    def told() -> None:
        if not sys.stdin.buffer.raw.readline():  # whoever started us is gone
            os._exit(0)
        found = list(connections)
        for connection in found:
            connection.abort()
        os.write(1, b"%d\n" % len(found))

    loop.add_reader(0, told)
    await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]))
    except KeyboardInterrupt:
        sys.exit(1)
