"""The processes that train one network together, as ``torchrun`` starts them; usually there is just one.

Each takes its share of every batch, and gradients are added up over all, so the weights stay the same everywhere.
Rank 0 alone writes: state, checkpoint, progress. What goes between them is tensors and bytes, never a pickle.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from backend.errors import RingRiftError, UsageError

SILENCE = timedelta(minutes=30)
"""A member may keep the others waiting so long, e.g. while rank 0 measures or writes."""
SIOCGIFADDR = 0x8915
"""Address of an interface: netdevice(7)."""


@dataclass(frozen=True, slots=True)
class Group:
    """One process's view of them all.

    Attributes:
        rank: of this process, 0 to ``size - 1``; rank 0 writes.
        local: its number among those on this machine, which is that of its GPU.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """The device that this process takes when all of a machine are of this kind."""
        own = device.type == "cuda" and device.index is None and self.size > 1
        return torch.device("cuda", self.local) if own else device

    def add(self, values: Tensor) -> Tensor:
        """The sum over all processes, in the place of ``values``."""
        if self.size > 1:
            with _told():
                dist.all_reduce(values)
        return values

    def add_gradients(self, parameters: Iterable[Tensor], loss: Tensor) -> float:
        """Replaces every gradient by its sum over all processes, in one message; returns the sum of the losses."""
        if self.size == 1:
            return float(loss.detach())
        tensors = list(parameters)
        grads = [torch.zeros_like(tensor) if tensor.grad is None else tensor.grad for tensor in tensors]
        flat = self.add(torch.cat([*(grad.flatten() for grad in grads), loss.detach().reshape(1)]))
        parts = torch.split(flat[:-1], [grad.numel() for grad in grads])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.grad = part.view_as(tensor)
        return float(flat[-1])

    def broadcast(self, data: bytes, device: torch.device) -> bytes:
        """What rank 0 gives, in every process."""
        if self.size == 1:
            return data
        with _told():
            length = torch.tensor([len(data)], dtype=torch.int64, device=device)
            dist.broadcast(length, 0)
            content = torch.zeros(int(length), dtype=torch.uint8, device=device)
            if self.first:
                content = torch.frombuffer(bytearray(data), dtype=torch.uint8).to(device) if data else content
            dist.broadcast(content, 0)
        return bytes(content.cpu().numpy().tobytes())


ALONE = Group()


@contextmanager
def join(device: str | None = None) -> Iterator[Group]:
    """The group that the environment describes (``WORLD_SIZE``, ``RANK``, ``LOCAL_RANK`` of torchrun), else one alone.

    Gloo on the CPU, NCCL with CUDA.

    Raises:
        UsageError: the devices of this machine cannot train together.
        RingRiftError: the others cannot be reached.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    kind = (device or ("cuda" if torch.cuda.is_available() else "cpu")).partition(":")[0]
    if kind not in ("cuda", "cpu"):
        raise UsageError("a gang trains on CUDA or on the CPU", where=str(device))
    group = Group(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", "0")))
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        name = interface_towards(os.environ["MASTER_ADDR"]) if variable not in os.environ else None
        if name is not None:
            os.environ[variable] = name
    if kind == "cuda":
        torch.cuda.set_device(group.local)
    with _told():
        dist.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=SILENCE)
    try:
        yield group
    finally:
        dist.destroy_process_group()


def interface_towards(address: str) -> str | None:
    """The network interface whose address this machine has towards another; None where that cannot be told.

    Left to itself, gloo takes the address that the machine's own name stands for, which is often one of loopback.
    """
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))  # nothing is sent: this only asks for the route
        own = probe.getsockname()[0]
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            with suppress(OSError):  # an interface without an address
                if socket.inet_ntoa(fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request)[20:24]) == own:
                    return name
    return None


@contextmanager
def _told() -> Iterator[None]:
    """What goes wrong between the processes in one line; mostly another one has ended."""
    try:
        yield
    except RuntimeError as error:
        said = str(error).strip().splitlines()
        raise RingRiftError("a member of the gang is gone", hint=said[0][:200] if said else "") from error
