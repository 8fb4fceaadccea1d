"""One aria2c on a host: started, asked over its loopback port, read while it talks, ended.

Standard library only, Python 3.9 or newer. Its settings and the secret of its port stand in a file of mode 0600 that is
removed as soon as it was read; the addresses of the sources, which hold tokens, go through the port. What it says comes
through a pipe and is not kept: from it we learn which source sent a piece that is not the right one.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import secrets
import socket
import subprocess
import threading
import time
from typing import Any

from backend.distribution.standing import Refusal

START_S = 20.0
END_S = 10.0
RPC_S = 20.0
GREETING_S = 2.0
TRIES = 3
KEYS = [
    "status",
    "completedLength",
    "totalLength",
    "downloadSpeed",
    "bitfield",
    "numPieces",
    "errorCode",
    "errorMessage",
    "verifiedLength",
    "verifyIntegrityPending",
]
_ERROR = re.compile(rb"errorCode=\d+ URI=(\S+)")
_WRONG = re.compile(rb"Invalid checksum index=(\d+)")


def settings(folder: str, port: int, secret: str, limit: float, timeout_s: float, per_server: int) -> str:
    """aria2's configuration: HTTP only, everything checked by piece, nothing taken from the host's own settings."""
    lines = {
        "dir": folder,
        "enable-rpc": "true",
        "rpc-listen-all": "false",
        "rpc-listen-port": port,
        "rpc-secret": secret,
        "rpc-max-request-size": "64M",
        "rpc-save-upload-metadata": "false",  # it holds the tokens
        "stop-with-process": os.getpid(),
        "check-integrity": "true",
        "realtime-chunk-checksum": "true",
        "allow-overwrite": "true",
        "auto-file-renaming": "false",
        "auto-save-interval": 0,
        "file-allocation": "none",
        "follow-metalink": "mem",
        "follow-torrent": "false",
        "split": 16,
        "max-connection-per-server": per_server,
        "min-split-size": "1M",
        "disk-cache": "16M",
        "connect-timeout": 5,
        "timeout": max(1, int(timeout_s)),
        "retry-wait": 1,
        "max-tries": 4,
        "max-overall-download-limit": int(limit),
        "no-netrc": "true",
        "enable-dht": "false",
        "enable-color": "false",
        "console-log-level": "info",
        "show-console-readout": "false",
        "summary-interval": 0,
    }
    return "".join(f"{key}={value}\n" for key, value in lines.items())


class Engine:
    """See the module.

    Attributes:
        suspects: (address, piece) for every piece that came wrong; drained by the user.
    """

    def __init__(
        self, program: str, folder: str, *, limit: float, timeout_s: float, per_server: int, port: int
    ) -> None:
        self.suspects: list[tuple[str, int]] = []
        self.gid = ""
        self._deaf = False  # it said that it cannot listen; it goes on all the same
        conf = os.path.join(folder, "aria2.conf")
        for _ in range(1 if port else TRIES):
            self._secret, self._port = secrets.token_hex(32), port or _free_port()
            _write_private(conf, settings(folder, self._port, self._secret, limit, timeout_s, per_server))
            try:
                self._process = subprocess.Popen(
                    [program, f"--conf-path={conf}"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    cwd=folder,
                    env={"PATH": os.environ.get("PATH", os.defpath), "HOME": folder, "LC_ALL": "C"},  # no proxies
                    start_new_session=True,
                )
                self._reader = threading.Thread(target=self._listen, daemon=True)
                self._reader.start()
                if self._up():
                    return
            except OSError as error:
                raise Refusal("engine", f"{program}: {error.strerror}") from None
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(conf)
            self.end()
        raise Refusal("port", f"aria2c cannot listen on port {self._port} of loopback")

    def _up(self) -> bool:
        """Whether it is this process that answers on the port; somebody else's does not know the secret."""
        until = time.monotonic() + START_S
        while self.running() and not self._deaf and time.monotonic() < until:
            try:
                self.ask("getVersion", timeout_s=GREETING_S)
                return True
            except (OSError, http.client.HTTPException, ValueError, RpcError):
                time.sleep(0.05)
        return False

    def running(self) -> bool:
        return self._process.poll() is None

    def ask(self, method: str, *arguments: Any, timeout_s: float = RPC_S) -> Any:
        """Calls ``aria2.<method>``.

        Raises:
            RpcError: it says no.
            OSError, http.client.HTTPException, ValueError: it does not answer, or not in JSON.
        """
        params = [f"token:{self._secret}", *arguments]
        body = json.dumps({"jsonrpc": "2.0", "id": "1", "method": f"aria2.{method}", "params": params})
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=timeout_s)
        try:
            connection.request("POST", "/jsonrpc", body, {"Content-Type": "application/json"})
            value = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if "result" not in value:
            raise RpcError(str((value.get("error") or {}).get("message")))
        return value["result"]

    def fetch(self, document: str) -> None:
        """Begins to load what a Metalink document says."""
        self.gid = self.ask("addMetalink", base64.b64encode(document.encode()).decode())[0]

    def change(self, drop: list[str], add: list[str]) -> None:
        """Takes addresses away from the download and gives it others."""
        self.ask("changeUri", self.gid, 1, drop, add)

    def limit(self, rate: float) -> None:
        self.ask("changeGlobalOption", {"max-overall-download-limit": str(int(rate))})

    def status(self) -> dict[str, Any]:
        return dict(self.ask("tellStatus", self.gid, KEYS))

    def speeds(self) -> dict[str, float]:
        """Bytes a second now by address; a source is named by the address that is in use."""
        found: dict[str, float] = {}
        for entry in self.ask("getServers", self.gid):
            for server in entry["servers"]:
                found[server["uri"]] = found.get(server["uri"], 0.0) + float(server["downloadSpeed"])
        return found

    def end(self) -> None:
        """Ends it, so that its file is closed; when this returns, it writes nothing more."""
        if self.running() and not self._deaf:
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError, RpcError):
                self.ask("forceShutdown")
            try:
                self._process.wait(END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        elif self._deaf:
            self._process.kill()
        self._process.wait()
        self._reader.join()

    def _listen(self) -> None:
        """Reads what it says: an error names its address on the line before the one that names the piece."""
        address = ""
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                if b"IPv4 RPC: failed" in line:
                    self._deaf = True
                elif found := _ERROR.search(line):
                    address = found.group(1).decode("utf-8", "replace")
                elif (found := _WRONG.search(line)) and address:
                    self.suspects.append((address, int(found.group(1))))


class RpcError(Exception):
    """What aria2 answers when it refuses."""


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _write_private(path: str, text: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as stream:
        stream.write(text)
