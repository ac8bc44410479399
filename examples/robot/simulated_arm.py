"""The arm of the grasping family in real time, 50 Hz, with a watchdog before its motors, on a socket of its own."""

import socket
import time

import numpy as np

from quickstudy.families.base import EPISODE, generators
from quickstudy.families.grasping.family import Grasping
from quickstudy.families.grasping.vector_env import KEEP, GraspingVectorEnv
from quickstudy_runtime import QuickstudyError
from quickstudy_runtime.client import Watchdog
from quickstudy_runtime.messages import pack, unpack

RATE, SUBSTEPS = 50, 8  # of 2.5 ms
REST = [0.0, 0.0, 0.0, 0.0, float("nan")]
COAST, STOPPING = 0.006, 2
"""A hand that is told to rest aims, for so many ticks, at where it would be so many seconds later, lest it swings."""
HOLD = 1.0
"""Seconds that a lifted object must stay up."""


class Arm(GraspingVectorEnv):
    """One arm with one object, moved 20 ms at a time: an action of the family's 20 Hz is a speed, held for as long."""

    def start(self, seed: int) -> None:
        self.reset(generators(self.tasks, 1, EPISODE, seed))
        self.up, self._rested = 0, STOPPING
        self._pose = self._now()

    def tick(self, action: np.ndarray) -> None:
        now, scaled = np.array([0]), action[None].copy()
        before, self._pose = self._pose, self._now()
        if action[:4].any():
            scaled[:, :4] *= 20 / RATE
            self._move_target(scaled, now)
        elif self._rested < STOPPING:  # the target runs ahead of a moving hand, which would go on to it
            aim = self._pose + COAST * RATE * (self._pose - before)
            self.target[0], self.target_yaw[0] = aim[:3], aim[3]
        self._rested = 0 if action[:4].any() else self._rested + 1
        self.grip[now] = action[4]
        place, turn = self.arm.mocap(self.target, self.target_yaw)
        force = self.arm.control(np.clip(3.0 * self.grip, -1.0, 1.0))
        carrier = {"mocap_pos": place[:, None], "mocap_quat": turn[:, None]}
        self.worlds.step({"ctrl": force, **carrier}, SUBSTEPS, now)
        self.up = self.up + 1 if self.read("centre")[0, 2] - self.start_centre[0] >= KEEP else 0

    def _now(self) -> np.ndarray:
        return np.append(self.tool, self._hand_yaw()[0])

    @property
    def tool(self) -> np.ndarray:
        """Where the hand is, [3] metres."""
        return np.array(self.read("tool")[0])

    @property
    def lifted_for(self) -> float:
        """Seconds that the object has been up."""
        return self.up / RATE


class SimulatedRobot:
    """The arm behind its socket: commands come in when they come, observations go out at 50 Hz.

    Args:
        timeout: seconds that a command holds: one and a half ticks, so that the first tick without one is at rest.

    Attributes:
        stopped: whether the motors got the action of rest in the last tick.
        round_trips: seconds from each observation to the command that answers it.
    """

    def __init__(self, family: Grasping, task_index: int, timeout: float = 0.03) -> None:
        self.arm = Arm([family.task("sizes", task_index)], 1, family.arm, threads=1)
        self.wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.wire.bind(("127.0.0.1", 0))
        self.port = self.wire.getsockname()[1]
        self._timeout, self._peer, self._sequence = timeout, None, 0
        self.round_trips: list[float] = []
        self._sent: dict[int, float] = {}
        self.stopped, self.overrun = True, 0.0
        self.begin(0)

    def begin(self, seed: int) -> None:
        """A new episode; the motors are at rest until a command comes."""
        self.arm.start(seed)
        self._next = time.monotonic()
        self.watchdog = Watchdog(REST, self._timeout, last=[0.0, 0.0, 0.0, 0.0, -1.0])

    def observe(self) -> dict:
        """The arm's observation with its number and its time stamp."""
        self._sequence += 1
        values = self.arm._observe().reshape(-1).astype(float)
        return {"observation": values, "sequence": self._sequence, "stamp": time.time()}

    def send(self, message: dict) -> None:
        """Sends an observation to whoever controls the arm."""
        self._sent[message["sequence"]] = time.monotonic()
        self._sent.pop(message["sequence"] - 500, None)
        if self._peer is not None:
            self.wire.sendto(pack(message), self._peer)

    def tick(self) -> None:
        """Takes commands until the next tick is due, then moves the arm by 20 ms."""
        self._next += 1 / RATE
        while (left := self._next - time.monotonic()) > 0:
            self.wire.settimeout(left)
            try:
                data, peer = self.wire.recvfrom(65536)
                command = unpack(data)
            except (TimeoutError, QuickstudyError):
                continue
            if "hello" in command:
                self._peer = peer
            elif peer == self._peer:
                self.watchdog.feed(command["action"])
                if command["sequence"] in self._sent:
                    self.round_trips.append(time.monotonic() - self._sent[command["sequence"]])
        self.overrun = max(self.overrun, -left)
        if left < -1 / RATE:  # the machine stood still: go on from here
            self._next = time.monotonic()
        action = self.watchdog.command()
        self.stopped = not action[:4].any()
        self.arm.tick(action)

    def close(self) -> None:
        self.wire.close()
        self.arm.close()
