"""What staging does on a host: makes a job's folder, tells which files are missing, seals what the job made.

Sent to the host's ``python3`` over standard input, so it needs nothing there: one file, standard library only, Python
3.9 or newer. ``python3 - OPERATION REQUEST`` prints one line of JSON behind :data:`MARK`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import sys
from typing import Any

MARK = "RINGRIFT-STAGING "
OWNER_FILE = ".ringrift-job"


def sha256_of(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while True:
            block = stream.read(1 << 20)
            if not block:
                return digest.hexdigest()
            digest.update(block)


def inside(root: str, name: str) -> str:
    """The path of ``name`` under ``root``; anything that would lead out of it is refused."""
    path = os.path.normpath(os.path.join(root, name))
    if os.path.isabs(name) or not path.startswith(root + os.sep):
        raise ValueError("not inside the job's folder: " + name)
    return path


def prepare(request: dict[str, Any]) -> dict[str, Any]:
    """Makes the folder of a job: ``{root, owner, files: {name: sha256}, folders, kept}`` -> ``{root, missing}``.

    What lies in ``kept`` under its SHA-256, because it was distributed to this host, is copied from there.
    """
    root = os.path.realpath(os.path.expanduser(request["root"]))
    os.makedirs(root, mode=0o700, exist_ok=True)
    mark = os.path.join(root, OWNER_FILE)
    if not os.path.exists(mark):
        with open(mark, "w") as stream:
            stream.write(request["owner"])
    for name in request.get("folders") or ():
        os.makedirs(inside(root, name), exist_ok=True)
    missing = []
    for name, sha256 in sorted(request["files"].items()):
        path = inside(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.isfile(path) and sha256_of(path) == sha256:
            continue
        if not take(os.path.join(os.path.expanduser(request.get("kept") or ""), sha256), sha256, path):
            missing.append(name)
    return {"root": root, "missing": missing}


def take(kept: str, sha256: str, path: str) -> bool:
    """Copies a kept file to ``path`` if it has that hash. No link: a job that wrote to it would change the kept one."""
    if not os.path.isabs(kept) or os.path.islink(kept) or not os.path.isfile(kept):
        return False
    temporary = f"{path}.{os.getpid()}"
    try:
        shutil.copyfile(kept, temporary)
        if sha256_of(temporary) != sha256:
            return False
        os.rename(temporary, path)
        return True
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def seal(request: dict[str, Any]) -> dict[str, Any]:
    """Hashes a job's outputs: ``{root, outputs: {name: kind}}`` -> ``{files: {name: {path, sha256, size}}, missing}``.

    A database is copied into one file first, with everything that its write-ahead log holds.
    """
    root = os.path.realpath(os.path.expanduser(request["root"]))
    files, missing = {}, []
    for name, kind in sorted(request["outputs"].items()):
        path = inside(root, name)
        if not os.path.isfile(path):
            missing.append(name)
            continue
        if kind == "sqlite":
            path = _copy_database(path, os.path.join(root, ".sealed", os.path.basename(name)))
        about = os.stat(path)
        files[name] = {"path": path, "sha256": sha256_of(path), "size": about.st_size}
    return {"files": files, "missing": missing}


def _copy_database(path: str, target: str) -> str:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    temporary = f"{target}.{os.getpid()}"
    try:
        source, copy = sqlite3.connect(path), sqlite3.connect(temporary)
        try:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
        finally:
            copy.close()
            source.close()
        os.rename(temporary, target)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    return target


def clean(request: dict[str, Any]) -> dict[str, Any]:
    """Removes a job's folder, if it is one of this owner: ``{root, owner}`` -> ``{removed}``."""
    root = os.path.realpath(os.path.expanduser(request["root"]))
    try:
        with open(os.path.join(root, OWNER_FILE)) as stream:
            ours = stream.read() == request["owner"]
    except FileNotFoundError:
        ours = False
    if ours:
        shutil.rmtree(root)
    return {"removed": ours}


OPERATIONS = {"prepare": prepare, "seal": seal, "clean": clean}


def main() -> int:
    try:
        answer = OPERATIONS[sys.argv[1]](json.loads(sys.argv[2]))
    except (OSError, ValueError, sqlite3.Error) as error:
        answer = {"error": str(error), "errno": getattr(error, "errno", None)}
    sys.stdout.write(MARK + json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
