"""GPUs that are not there: an ``nvidia-smi`` that prints, in the real one's format, what a test has written down."""

from __future__ import annotations

from pathlib import Path

UUIDS = ("GPU-3fb8a1a2-0e5c-9c1d-7b1f-2a60cf1c0de0", "GPU-9d2c47e6-51b0-4f9e-8c33-6d1b7f4a1de1")

_TOOL = """#!/bin/sh
case "$1" in
  --query-gpu=index,uuid) cat "{0}/gpus" ;;
  --query-compute-apps=gpu_uuid,pid,process_name) cat "{0}/apps" ;;
  *) echo "Field is not a valid field to query."; exit 2 ;;
esac
test ! -e "{0}/broken" || {{ cat "{0}/broken"; exit 9; }}
"""


class FakeGpus:
    """Two GPUs; ``folder`` belongs first on the ``PATH`` of whoever asks for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        tool = folder / "nvidia-smi"
        tool.write_text(_TOOL.format(folder))
        tool.chmod(0o755)
        (folder / "gpus").write_text("".join(f"{index}, {uuid}\n" for index, uuid in enumerate(UUIDS)))
        self.used_by()

    def used_by(self, *pids: int, gpu: int = 0) -> None:
        """What computes on a GPU."""
        (self.folder / "apps").write_text("".join(f"{UUIDS[gpu]}, {pid}, /usr/bin/python3.11\n" for pid in pids))

    def fail(self, said: str) -> None:
        """From now on it fails, as with a driver that was replaced while it ran."""
        (self.folder / "broken").write_text(said)
