"""The console's own file of enrolled host keys: OpenSSH's format, one key a host, under the host's name in hosts.yaml.

A key is in the file because somebody compared its fingerprint; nothing is ever added on first use. The names are
those of hosts.yaml, so ``ssh -o UserKnownHostsFile=FILE -o HostKeyAlias=NAME`` checks against the same key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from pathlib import Path

from backend.atomic import write_bytes
from backend.errors import SettingsError
from backend.locks import FileLock

PATIENCE_S = 10.0
"""For the others of several enrolments at once; each rewrites a small file."""


@dataclass(frozen=True, slots=True)
class HostKey:
    """A public key as it stands in a file: ``algorithm`` and its base64 ``blob``."""

    algorithm: str
    blob: str

    @classmethod
    def parse(cls, text: str, where: str = "") -> HostKey:
        """From ``ssh-ed25519 AAAA... [comment]``.

        Raises:
            SettingsError: it is no public key.
        """
        words = text.split()
        try:
            raw = base64.b64decode(words[1], validate=True)
            named = raw[4 : 4 + int.from_bytes(raw[:4], "big")].decode("ascii")
        except (IndexError, binascii.Error, UnicodeDecodeError):
            raise SettingsError("not a public host key", where=where) from None
        if named != words[0]:
            raise SettingsError("the host key is not of the kind that it says", where=where)
        return cls(words[0], words[1])

    @property
    def fingerprint(self) -> str:
        """As ``ssh-keygen -l`` prints it: ``SHA256:`` and unpadded base64."""
        digest = hashlib.sha256(base64.b64decode(self.blob)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    @property
    def text(self) -> str:
        return f"{self.algorithm} {self.blob}"


def enrolled_keys(path: Path) -> dict[str, HostKey]:
    """Host name -> enrolled key; an absent file means that no host is enrolled.

    Raises:
        SettingsError: a line cannot be understood. A damaged file trusts nobody.
    """
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError("cannot read the enrolled host keys", where=str(path), hint=str(error)) from None
    found: dict[str, HostKey] = {}
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            name, _, key = line.partition(" ")
            found[name] = HostKey.parse(key, f"{path} line {number}")
    return found


def enrol_key(path: Path, name: str, key: HostKey) -> None:
    """Trusts ``key`` for the host from now on, in place of any other."""
    with FileLock(path.with_name(path.name + ".lock"), "enrolment of a host key", PATIENCE_S):
        _write(path, enrolled_keys(path) | {name: key})


def forget_key(path: Path, name: str) -> bool:
    """Trusts no key for the host any more; False when there was none."""
    with FileLock(path.with_name(path.name + ".lock"), "removal of a host key", PATIENCE_S):
        keys = enrolled_keys(path)
        if keys.pop(name, None) is None:
            return False
        _write(path, keys)
    return True


def _write(path: Path, keys: dict[str, HostKey]) -> None:
    text = "".join(f"{name} {key.text}\n" for name, key in sorted(keys.items()))
    write_bytes(path, text.encode(), mode=0o600)
