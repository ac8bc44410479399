"""What worlds of many tasks have in common, worked out at once: a NumPy call costs as much for two as for forty.

Of every task: what is observed of the arm. Of most: how far the thing that matters is from its goal, how well the
fingers surround the object, and whether they hold it.
"""

from collections.abc import Sequence

import numpy as np

from quickstudy.families.metaworld.port import Port, quaternion
from quickstudy.families.metaworld.rewards import XZ, length, long_tail, outside, pads_outside


def rows_of(counts: Sequence[int]) -> list[slice]:
    """The rows of each of several groups that lie one after the other."""
    ends = np.cumsum(counts).tolist()
    return [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]


class Common:
    """The worlds of several ports, task by task; what a `Port` says it shares becomes rows of arrays of all.

    Attributes:
        count: worlds.
    """

    def __init__(self, ports: Sequence[Port]):
        counts = [len(port.data) for port in ports]
        self.count, self._ports = sum(counts), list(zip(ports, rows_of(counts), strict=True))
        self._bodies, self._arm = self._joined("xpos", [port.arm for port in ports])
        self._sites, self._tips = self._joined("site_xpos", [port.tips for port in ports])
        self._frame = np.zeros((self.count, 18))
        self._start = self._shared("start", 3)
        self._grip_start, self._tcp_start = self._shared("grip_start", 3), self._shared("tcp_start", 3)
        self._tcp, self._pads = self._shared("tcp", 3), self._shared("pads", 2)
        self._shared("target", 3)
        self._aim, self._margin = self._shared("aim", 3), self._shared("margin")
        self._to_target, self._in_place = self._shared("to_target"), self._shared("in_place")
        self._cage, self._held = self._shared("cage"), self._shared("held", dtype=bool)
        each = np.repeat(np.arange(len(ports)), counts)
        self._reach, self._weights = (np.array(of_all)[each] for of_all in zip(*(p.goal for p in ports), strict=True))
        radius, pad_reach, self._xz_reach, self._near, one_sided, self._lift = (
            np.array(of_all)[each] for of_all in zip(*(port.grip for port in ports), strict=True)
        )
        self._pads_should = radius[:, None], pad_reach[:, None], one_sided[:, None]
        self._xz_margin = np.zeros(self.count)
        self._thing, self._gripped = np.zeros((self.count, 3)), np.zeros((self.count, 3))
        turned = [port.matrix() is not None for port in ports]
        self._turned = np.flatnonzero(np.repeat(turned, counts))

    def prepare(self, begun: np.ndarray) -> None:
        """Works out what an episode leaves as it is; called when episodes have begun in the worlds `begun` [row]."""
        for port, rows in self._ports:
            if begun[rows].any():
                port.prepare()
        self._xz_margin = length((self._grip_start - self._tcp_start)[:, XZ]) - self._xz_reach

    def observe(self) -> np.ndarray:
        """The present frame [world, 18]: hand 3, opening of the gripper, objects 14."""
        arm, tips, frame = self._bodies.take(self._arm, 0), self._sites.take(self._tips, 0), self._frame
        np.add(tips[:, 0], tips[:, 1], out=self._tcp)
        self._tcp /= 2.0
        self._pads[:] = arm[:, 3:, 1]
        frame[:, :3] = arm[:, 0]
        np.minimum(length(arm[:, 1] - arm[:, 2]) / 0.1, 1.0, out=frame[:, 3])
        matrices = []
        for port, rows in self._ports:
            objects = port.objects()
            frame[rows, 4 : 4 + objects.shape[1]] = objects
            if (matrix := port.matrix()) is not None:
                matrices.append(matrix)
        if matrices:
            frame[self._turned, 7:11] = quaternion(np.concatenate(matrices))
        return frame

    def judge(self, seen: np.ndarray) -> None:
        """Refreshes what the rewards have in common.

        Args:
            seen: what is observed, [world, 39].
        """
        self._thing[:] = self._gripped[:] = seen[:, 4:7]
        for port, rows in self._ports:
            here = seen[rows]
            if (thing := port.thing(here)) is not None:
                self._thing[rows] = thing
            if (gripped := port.gripped(here)) is not None:
                self._gripped[rows] = gripped
        self._to_target[:] = length((self._thing - self._aim) * self._weights)
        far = outside(self._to_target, self._reach, self._margin)
        self._in_place[:] = long_tail(far * far)

        y = pads_outside(self._pads, self._grip_start, self._gripped, *self._pads_should)
        off = self._tcp - self._gripped
        xz = outside(length(off[:, XZ]), self._xz_reach, self._xz_margin)
        self._cage[:] = long_tail(np.vecdot(y, y) + xz * xz)
        lifted = self._gripped[:, 2] - self._lift > self._start[:, 2]
        self._held[:] = (length(off) < self._near) & (seen[:, 3] > 0) & lifted

    def _shared(self, name: str, width: int | None = None, dtype: type = float) -> np.ndarray:
        """An array of all worlds, whose rows become the ports' attribute `name`."""
        whole: np.ndarray = np.zeros(self.count if width is None else (self.count, width), dtype)
        for port, rows in self._ports:
            setattr(port, name, whole[rows])
        return whole

    def _joined(self, field: str, chosen: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """A field of all ports as one array [any, 3], theirs a part of it, and where the chosen [world, n] are."""
        parts = [port.readings[field] for port, _ in self._ports]
        whole, where = np.concatenate([part.reshape(-1, 3) for part in parts]), []
        places = rows_of([part.shape[0] * part.shape[1] for part in parts])
        for (port, _), part, rows, some in zip(self._ports, parts, places, chosen, strict=True):
            port.readings[field] = whole[rows].reshape(part.shape)
            where.append(rows.start + part.shape[1] * np.arange(len(part))[:, None] + some)
        return whole, np.concatenate(where)
