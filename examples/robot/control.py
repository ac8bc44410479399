"""A robot's control program: takes observations off the wire, asks a server of quickstudy, sends commands.

    quickstudy-runtime serve grasping.quickstudy --demo demonstration.npz --max-age 0.1
    python examples/robot/control.py ws://127.0.0.1:8000 --arm 127.0.0.1:7000

It needs quickstudy-runtime alone. Observations and commands are datagrams of msgpack: an observation says when it was
measured and which it is, a command says which observation it answers. Where no observation comes, no command goes out,
and the arm's watchdog stops it; where one is late, repeated or out of order, the server holds the arm.
"""

import argparse
import socket
import sys

import numpy as np

from quickstudy_runtime import QuickstudyError
from quickstudy_runtime.client import Remote
from quickstudy_runtime.messages import pack, unpack

REST = [0.0, 0.0, 0.0, 0.0, float("nan")]
"""Of the grasping arms: no motion, and the grip as it was."""


def newest(wire: socket.socket) -> dict | None:
    """The last observation that came; None where none came in time."""
    found = None
    try:
        while True:
            data = wire.recv(65536)
            wire.settimeout(0)
            found = data
    except (TimeoutError, BlockingIOError):
        return unpack(found) if found else None


def main() -> int:
    parser = argparse.ArgumentParser(description="Drives an arm by what a server of quickstudy says.")
    parser.add_argument("server")
    parser.add_argument("--arm", default="127.0.0.1:7000", help="where the arm listens for commands")
    parser.add_argument("--deadline", type=float, default=0.015, help="seconds that an answer may take")
    given = parser.parse_args()
    host, port = given.arm.rsplit(":", 1)
    try:
        remote = Remote(given.server, REST, given.deadline, last=[0.0, 0.0, 0.0, 0.0, -1.0])
    except QuickstudyError as fault:
        print(fault, file=sys.stderr)
        return 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.connect((host, int(port)))
        wire.send(pack({"hello": True}))
        while True:
            wire.settimeout(0.5)
            seen = newest(wire)
            if seen is None:
                wire.send(pack({"hello": True}))
                continue
            action = remote.act(
                {"observation": np.asarray(seen["observation"])}, stamp=seen["stamp"], sequence=seen["sequence"]
            )
            wire.send(pack({"action": action, "sequence": seen["sequence"]}))


if __name__ == "__main__":
    sys.exit(main())
