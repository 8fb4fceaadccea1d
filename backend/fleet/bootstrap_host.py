"""Sets our code up on a host; run there as ``python3 -I - STEP JSON``, so only the standard library, 3.9 on.

Each step may be run again at any time: what is complete is left alone, and what is not is made anew. Nothing is
complete before its last rename or its marker, so a step that was killed leaves nothing that looks finished.

    <folder>/incoming/<sha256>.tar.gz       as it was sent
    <folder>/bundles/<sha256>/code          the code
    <folder>/bundles/<sha256>/env-<key>     an interpreter that sees exactly that code and one set of packages
    <folder>/bundles/<sha256>/used-by-<owner>   which heads send jobs that run it
    <folder>/venvs/<key>                    packages by pip, keyed by their pins, Python and machine
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import importlib
import json
import os
import platform
import shutil
import site
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from typing import Any

MAGIC = "RINGRIFT-BOOTSTRAP"
MARKER = ".complete"
USED_BY = "used-by-"
KEPT = 2
"""Bundles that stay: the one in use and the one before it."""
FRESH_S = 3600.0
"""What was made or asked for within this time stays: somebody else may be about to use it."""
TAIL = 300


class StepError(Exception):
    """Why a step cannot be done; ``kind`` says whose business it is."""

    def __init__(self, kind: str, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.kind, self.hint = kind, hint


def environment(request: dict[str, Any]) -> dict[str, Any]:
    """The packages: those of this interpreter when ``given``, else an environment of our own, made by pip."""
    if request["given"]:
        sites = [path for path in [*site.getsitepackages(), site.getusersitepackages()] if os.path.isdir(path)]
        key = digest(sys.executable, sys.version, *sites)
        return {"key": key, "sites": sites, "python": sys.executable, "made": False}
    index = request.get("index")
    key = digest(*request["pins"], *([index] if index else []), platform.python_version(), platform.machine())
    target = os.path.join(request["folder"], "venvs", key)
    python = os.path.join(target, "bin", "python")
    made = not os.path.exists(os.path.join(target, MARKER))
    if made:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with locked(target + ".lock"):
            if not os.path.exists(os.path.join(target, MARKER)):
                make_environment(target, python, request["pins"], index)
    os.utime(os.path.join(target, MARKER))
    for pin in request.get("optional", ()):
        add_optional(python, pin)
    code = "import json, site; print(json.dumps(site.getsitepackages()))"
    sites = json.loads(run([python, "-I", "-c", code]))
    return {"key": key, "sites": sites, "python": python, "made": made}


def make_environment(target: str, python: str, pins: list[str], index: str | None = None) -> None:
    """A virtual environment with the pinned packages; goes on with what an earlier try left.

    Torch alone comes from ``index``, where there is one: its other packages are whatever pip is set up to take.
    """
    try:
        venv.EnvBuilder(with_pip=True, symlinks=True).create(target)
    except subprocess.CalledProcessError as error:
        shutil.rmtree(target, ignore_errors=True)
        hint = f"apt-get install {python_name()}-venv, or give venv_activate in hosts.yaml"
        raise StepError("venv", "it cannot make an environment with pip", hint) from error
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--quiet"]
    if index:
        torch = [pin for pin in pins if pin.startswith("torch==")]
        run([*pip, "--no-deps", "--index-url", index, *torch], "pip cannot install", f"is torch to be had at {index}?")
    run([*pip, *pins], "pip cannot install", "is there a network? else give venv_activate in hosts.yaml")
    write(os.path.join(target, MARKER), "\n".join(pins))


def add_optional(python: str, pin: str) -> None:
    """Installs a package that may be missing, unless it is there; only from a wheel, for not every machine has one."""
    name = pin.partition("==")[0]
    there = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({name!r}) is None)"
    try:
        run([python, "-I", "-c", there])
    except StepError:
        pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--quiet"]
        with contextlib.suppress(StepError):  # the check tells that it is not there
            run([*pip, "--only-binary", ":all:", pin])


def unpack(request: dict[str, Any]) -> dict[str, Any]:
    """The code from its archive, verified by its hash, and the interpreter that sees it."""
    sha256, folder = request["sha256"], request["folder"]
    target = os.path.join(folder, "bundles", sha256)
    archive = os.path.join(folder, "incoming", sha256 + ".tar.gz")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with locked(target + ".lock"):
        made = not os.path.exists(os.path.join(target, MARKER))
        if made:
            unpack_archive(archive, sha256, target)
        if os.path.exists(archive):
            os.unlink(archive)
        os.utime(os.path.join(target, MARKER))
        return {"python": interpreter(target, request["key"], request["sites"]), "made": made}


def unpack_archive(archive: str, sha256: str, target: str) -> None:
    """The code of an archive under its final name, or nothing."""
    with open(archive, "rb") as stream:
        found = hashlib.sha256(stream.read()).hexdigest()
    if found != sha256:
        raise StepError("hash", "the code that arrived is not the code that was sent", "bootstrap again")
    staging = tempfile.mkdtemp(prefix=".new-", dir=os.path.dirname(target))
    try:
        extract(archive, os.path.join(staging, "code"))
        write(os.path.join(staging, MARKER), sha256)
        publish(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def extract(archive: str, target: str) -> None:
    """Regular files with plain relative names, nothing else."""
    with tarfile.open(archive) as stream:
        for about in stream:
            parts = about.name.split("/")
            if not about.isreg() or os.path.isabs(about.name) or ".." in parts:
                raise StepError("hash", f"the code has a strange file: {about.name!r}")
            path = os.path.join(target, *parts)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            source = stream.extractfile(about)
            assert source is not None
            with open(path, "wb") as output:
                shutil.copyfileobj(source, output)
                output.flush()
                os.fsync(output.fileno())


def interpreter(bundle: str, key: str, sites: list[str]) -> str:
    """An interpreter whose path leads to the bundle's code first, then to the packages."""
    target = os.path.join(bundle, "env-" + key)
    if not os.path.isdir(target):
        staging = tempfile.mkdtemp(prefix=".env-", dir=bundle)
        try:
            venv.EnvBuilder(with_pip=False, symlinks=True).create(staging)
            libraries = os.path.join(staging, "lib", python_name(), "site-packages")
            lines = [os.path.relpath(os.path.join(bundle, "code"), libraries.replace(staging, target))]
            lines += [f"import site; site.addsitedir({path!r})" for path in sites]
            write(os.path.join(libraries, "ringrift.pth"), "\n".join(lines) + "\n")
            publish(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return os.path.join(target, "bin", "python")


def publish(staging: str, target: str) -> None:
    """Renames a finished folder to its name; another who came first is as good, as names say what is in them."""
    os.chmod(staging, 0o755)
    try:
        os.rename(staging, target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
    folder = os.open(os.path.dirname(target), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def check(request: dict[str, Any]) -> dict[str, Any]:
    """Run by the new interpreter: whether it sees the code and the packages it should."""
    code = os.path.join(request["folder"], "bundles", request["sha256"], "code")
    import backend

    if os.path.realpath(os.path.dirname(os.path.dirname(str(backend.__file__)))) != os.path.realpath(code):
        raise StepError("code", f"another copy of the code comes first: {backend.__file__}")
    found: dict[str, Any] = {"python": platform.python_version()}
    for name in request["modules"]:
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            raise StepError("package", f"its Python cannot import {name}: {error}", request["hint"]) from error
        found[name] = str(getattr(module, "__version__", "unknown"))
        if name == "torch":
            found["cuda"] = module.cuda.device_count() if module.cuda.is_available() else 0
    for name in request.get("optional", ()):
        try:
            found[name] = str(getattr(importlib.import_module(name), "__version__", "unknown"))
        except (ImportError, OSError):  # OSError: a library that it needs is missing
            found[name] = None
    return found


def prune(request: dict[str, Any]) -> dict[str, Any]:
    """Removes code and environments that nobody uses any more: ``{folder, owner, sha256, keep}`` -> ``{removed}``.

    Kept are the code ``sha256`` that ``owner`` uses from now on, the one before it, what is in ``keep``, what another
    head uses, and what an unfinished job or a live process runs.
    """
    folder, current = request["folder"], request["sha256"]
    bundles = os.path.join(folder, "bundles")
    found = sorted(complete(bundles), key=lambda name: (name == current, marked_at(bundles, name)))
    write(os.path.join(bundles, current, USED_BY + request["owner"]), "")
    busy = in_use(folder)
    removed = []
    for name in found[:-KEPT]:
        with locked(os.path.join(bundles, name) + ".lock"):
            place = os.path.join(bundles, name)
            if name in request["keep"]:
                continue
            mine = os.path.join(place, USED_BY + request["owner"])
            if os.path.exists(mine):
                os.unlink(mine)
            used = any(entry.startswith(USED_BY) for entry in os.listdir(place))
            if not used and not fresh(bundles, name) and not any(f"bundles/{name}" in text for text in busy):
                discard(place)
                removed.append(f"bundles/{name}")
    venvs = os.path.join(folder, "venvs")
    keys = {entry for name in complete(bundles) for entry in os.listdir(os.path.join(bundles, name))}
    for key in complete(venvs):
        used = "env-" + key in keys or any(f"venvs/{key}" in text for text in busy)
        if not used and not fresh(venvs, key):
            with locked(os.path.join(venvs, key) + ".lock"):
                discard(os.path.join(venvs, key))
            removed.append(f"venvs/{key}")
    for parent in (bundles, venvs):  # what an earlier try was killed over
        for entry in os.listdir(parent) if os.path.isdir(parent) else ():
            if entry.startswith(".old-"):
                shutil.rmtree(os.path.join(parent, entry), ignore_errors=True)
    return {"removed": removed}


def complete(parent: str) -> list[str]:
    """The finished folders in a folder."""
    names = os.listdir(parent) if os.path.isdir(parent) else []
    return [name for name in names if os.path.exists(os.path.join(parent, name, MARKER))]


def marked_at(parent: str, name: str) -> float:
    return os.stat(os.path.join(parent, name, MARKER)).st_mtime


def fresh(parent: str, name: str) -> bool:
    return time.time() - marked_at(parent, name) < FRESH_S


def discard(place: str) -> None:
    """Takes a folder's name away at once and its files after that, so that nothing half removed looks finished."""
    aside = os.path.join(os.path.dirname(place), f".old-{os.getpid()}-{os.path.basename(place)}")
    os.rename(place, aside)
    shutil.rmtree(aside, ignore_errors=True)


def in_use(folder: str) -> list[str]:
    """What live processes and unfinished jobs of any head run, as text in which a path can be looked for."""
    texts = []
    for pid in (entry for entry in os.listdir("/proc") if entry.isdigit()):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as stream:
                texts.append(stream.read().replace(b"\0", b" ").decode("utf-8", "replace"))
        except OSError:  # it has ended
            continue
    jobs = os.path.join(folder, "jobs")
    for key in os.listdir(jobs) if os.path.isdir(jobs) else ():
        if not os.path.exists(os.path.join(jobs, key, "exit.json")):
            try:
                with open(os.path.join(jobs, key, "spec.json"), encoding="utf-8", errors="replace") as stream:
                    texts.append(stream.read())
            except FileNotFoundError:  # it was never started
                continue
    return texts


def python_name() -> str:
    """``python3.11``."""
    return f"python{sys.version_info[0]}.{sys.version_info[1]}"


def digest(*words: str) -> str:
    """A short name for what it is made from."""
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def run(argv: list[str], what: str = "a command failed", hint: str = "") -> str:
    """The output of a command; its last words when it fails."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        words = " ".join((done.stderr or done.stdout).decode("utf-8", "replace").split())
        if "No space left" in words or "Errno 28" in words:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise StepError("run", f"{what}: {words[-TAIL:]}", hint)
    return done.stdout.decode("utf-8", "replace")


class locked:
    """Waits for a lock that the kernel drops when its holder dies."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> None:
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)


def write(path: str, text: str) -> None:
    """A small file, on the disk when this returns."""
    with open(path, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


STEPS = {"environment": environment, "unpack": unpack, "check": check, "prune": prune}


def main(argv: list[str]) -> int:
    """Does one step and prints its answer, or why it could not be done."""
    try:
        answer = {"ok": STEPS[argv[0]](json.loads(argv[1]))}
    except StepError as error:
        answer = {"error": {"kind": error.kind, "text": str(error), "hint": error.hint}}
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        text = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
        answer = {"error": {"kind": "full" if full else "system", "text": text, "hint": ""}}
    sys.stdout.write(f"\n{MAGIC} {json.dumps(answer)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
