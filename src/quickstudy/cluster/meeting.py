"""Where the workers of a group find each other, to form a process group of torch.distributed."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import ray
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

_SIOCGIFADDR = 0x8915
"""Linux: the address of a network interface."""


class PeerLostError(Exception):
    """Something that all workers of a group do together broke off: another one is gone or does not answer."""


@contextmanager
def together() -> Iterator[None]:
    """What breaks off in here does so because of another worker.

    Raises:
        PeerLostError: it did.
    """
    try:
        yield
    except RuntimeError as error:
        raise PeerLostError(str(error)) from error


def opened(size: int, patience: float) -> tuple[TCPStore, str, int]:
    """A place on this machine where `size` workers meet, and its host and port."""
    host, timeout = ray.util.get_node_ip_address(), timedelta(seconds=patience)
    store = TCPStore(host, 0, size, is_master=True, timeout=timeout, wait_for_workers=False)
    return store, host, store.port


def enter(
    store: TCPStore | None, rank: int, size: int, host: str, port: int, patience: float, on_cpu: bool = True
) -> None:
    """Makes this process worker `rank` of `size`, in place of what it was before.

    Args:
        store: what `opened` gave; None in the other processes, which reach it by `host` and `port`.
        patience: seconds that the others are waited for, here and in each all-reduce.

    Raises:
        PeerLostError: they did not come.
    """
    if dist.is_initialized():
        dist.destroy_process_group()
    if size == 1:
        return
    timeout, backend = timedelta(seconds=patience), "gloo" if on_cpu else "cpu:gloo,cuda:nccl"
    if name := _interface(ray.util.get_node_ip_address()):
        os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = name
    with together():
        place = store or TCPStore(host, port, size, is_master=False, timeout=timeout)
        dist.init_process_group(backend, store=place, rank=rank, world_size=size, timeout=timeout)


def _interface(address: str) -> str:
    """The network interface that has this address; empty where the system does not tell.

    Without it, gloo takes the address of the host's name, which on many machines is that of the loopback.
    """
    if sys.platform != "linux":
        return ""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asked.fileno(), _SIOCGIFADDR, name.encode().ljust(256, b"\0"))
            except OSError:  # one without an address
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return ""
