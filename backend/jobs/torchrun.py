"""The command line of a gang's member: ``torchrun`` around the command of its job.

Static rendezvous, because it makes the member that was placed first rank 0, which writes the checkpoint; with c10d the
order of arrival decides. No restarts inside: a gang is started again as a whole, from the last saved state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MODULE = "torch.distributed.run"


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """Where the members of a gang attempt meet.

    Attributes:
        id: the key of the gang attempt, that of its first member's attempt.
        address, port: of the first member's host, as the others reach it; without an address the environment of each
            member tells it (``PET_RDZV_ENDPOINT``), for an engine chooses the node.
        nodes: how many members there are.
        processes: on each of them; one per GPU.
        members: keys of all their attempts, where an engine runs them as one job.
    """

    id: str
    address: str
    port: int
    nodes: int
    processes: int = 1
    members: tuple[str, ...] = ()


def last_words(text: str) -> str:
    """The line of a log's end that tells why: its last one, unless ``torchrun`` has put its own report after it.

    That report names an exit code and no reason, and ends in a line of ``=``; our programs say theirs before it, behind
    ``ringrift: ``.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    ours = [line.removeprefix("ringrift: ") for line in lines if line.startswith("ringrift: ")]
    if ours and lines[-1].strip("=-") == "":
        return ours[-1]
    return lines[-1] if lines else ""


def torchrun_argv(argv: Sequence[str], meet: Rendezvous, *, node: int | None) -> list[str]:
    """``argv``, which is ``[python, "-m", module, ...]``, as the command of one member.

    Args:
        node: number of the member from 0, whose processes then have the ranks from ``node * processes`` on; None where
            an engine starts the same command everywhere and sets ``PET_NODE_RANK`` for each.
    """
    host = f"[{meet.address}]" if ":" in meet.address else meet.address
    endpoint = [f"--rdzv-endpoint={host}:{meet.port}"] if host else []
    return [
        argv[0], "-m", MODULE, f"--nnodes={meet.nodes}", f"--nproc-per-node={meet.processes}", "--max-restarts=0",
        "--rdzv-backend=static", *endpoint, f"--rdzv-id={meet.id}",
        *([] if node is None else [f"--node-rank={node}"]), *argv[1:],
    ]  # fmt: skip
