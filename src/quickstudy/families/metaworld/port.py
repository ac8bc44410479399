"""What the batched tasks have in common: the light scene, the reset, and what is read of the arm.

A step is the package's, in its order: move the mocap body, five physics steps, one forward pass (which also changes the
next step's warm start), observe. A reset of the package lets the hand settle for 250 physics steps, twice, before it
places the object; what it settles to does not depend on the random vector, so here that is done once for a task.
"""

import copy
import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, NamedTuple

import mujoco
import numpy as np

from quickstudy.errors import QuickstudyError
from quickstudy.families.metaworld.rewards import length
from quickstudy.simulation.worlds import STATE

SUBSTEPS = 5
_SETTLING = 250
_DOWN = np.array([1.0, 0.0, 1.0, 0.0])
_ARM = ("hand", "rightclaw", "leftclaw", "leftpad", "rightpad")
_TIPS = ("rightEndEffector", "leftEndEffector")
_HAND_LOW, _HAND_HIGH = (-0.525, 0.348, -0.0525), (0.525, 1.025, 0.7)


def scene_path(scene: str) -> Path:
    """The package's file of a scene, without importing the package, which takes seconds."""
    spec = find_spec("metaworld")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "assets" / "sawyer_xyz" / f"{scene}.xml"


@dataclass(frozen=True)
class Tool:
    """A tool that is not Meta-World's own.

    Attributes:
        length: of the part that reaches from the grip to the working end, relative to Meta-World's tool.
        width: where it is held, relative likewise.
    """

    length: float = 1.0
    width: float = 1.0


@functools.cache
def _spec(scene: str, visual: bool) -> mujoco.MjSpec:
    spec = mujoco.MjSpec.from_file(str(scene_path(scene)))
    spec.compiler.discardvisual = not visual
    spec.compile()  # from now on the light one lacks what is discarded, so that it compiles eight times as fast
    return spec


@functools.cache
def load(kind: "type[Port]", visual: bool = False) -> mujoco.MjModel:
    """The model of a task; light unless `visual`: 3 MB instead of 21, with the same dynamics. Copy it to change it."""
    return build(kind, None, visual)


def build(kind: "type[Port]", tool: Tool | None, visual: bool = False) -> mujoco.MjModel:
    """Compiles the model of a task with some tool."""
    spec = _spec(kind.scene, visual)
    if tool is not None:
        spec = spec.copy()
        kind.shape(spec, tool)
    model = spec.compile()
    for equality in np.flatnonzero(model.eq_type == mujoco.mjtEq.mjEQ_WELD):
        model.eq_data[equality] = [0, 0, 0, 0, 0, 0, -1, 0, 0, 0, 5]  # as the package's `reset_mocap_welds`
    for geom in np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_MESH).tolist():
        model.geom_rbound[geom] = min(model.geom_rbound[geom], _reach(model, geom))
    return model


def _reach(model: mujoco.MjModel, geom: int) -> float:
    """How far a mesh reaches from its middle.

    MuJoCo takes the half diagonal of its box, and so looks for contacts where there can be none.
    """
    mesh = model.geom_dataid[geom]
    vertices = model.mesh_vert[model.mesh_vertadr[mesh] :][: model.mesh_vertnum[mesh]].astype(np.float64)
    return float(length(vertices).max()) + 1e-6


class Goal(NamedTuple):
    """When the thing that matters is in its place.

    Attributes:
        reach: how near its goal it then is.
        weights: of x, y and z in the distance.
    """

    reach: float = 0.05
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)


class Grip(NamedTuple):
    """How the fingers should surround the object, and when they hold it; in metres.

    Attributes:
        radius, pad_reach: how far from its middle the pads should be along y.
        xz_reach: how far from it the point between the finger tips may be in x and z.
        near: how far that point is at most when the object is held.
        one_sided: each pad must be on its own side of the object.
        lift: how much higher than at first an object is that is held.
    """

    radius: float = 0.015
    pad_reach: float = 0.05
    xz_reach: float = 0.005
    near: float = 0.02
    one_sided: bool = False
    lift: float = 0.01


class Port(ABC):
    """Worlds of one task, stepped one at a time in many threads and judged all together.

    Attributes:
        data: one for each world.
        readings: field of `MjData` -> [world, ...], as of the last step or reset.
        arm, tips: which bodies and sites are the arm's.
        longer: how much further than that of Meta-World's tool the working end is [world, 3].

    Rows of the arrays of a `Common`, which gives them:
        start: where the object began [world, 3]; `tcp_start`: where the point between the finger tips did.
        grip_start: where that began which the fingers should surround [world, 3].
        target: what the goal is [world, 3]; `aim`: where the thing that matters should be, for the reward.
        margin: how far from it that thing was at first [world].
        tcp: the point between the finger tips [world, 3]; `pads`: y of the left and the right pad [world, 2].
        to_target: how far the thing that matters is from its aim, and `in_place`, 0 to 1, how little [world].
        cage: how well the fingers surround the object, 0 to 1; `held`: whether they hold it [world].
    """

    start: np.ndarray
    tcp_start: np.ndarray
    grip_start: np.ndarray
    target: np.ndarray
    aim: np.ndarray
    margin: np.ndarray
    tcp: np.ndarray
    pads: np.ndarray
    to_target: np.ndarray
    in_place: np.ndarray
    cage: np.ndarray
    held: np.ndarray

    scene: ClassVar[str]
    hand: ClassVar[np.ndarray] = np.array([0.0, 0.6, 0.2])
    """Where the hand starts; 32-bit where the package has it so."""
    hand_low: ClassVar[tuple[float, float, float]] = (-0.5, 0.40, 0.05)
    hand_high: ClassVar[tuple[float, float, float]] = (0.5, 1.0, 0.5)
    goal_low: ClassVar[tuple[float, float, float]]
    goal_high: ClassVar[tuple[float, float, float]]
    """Goals are shown clipped to this box."""
    moved: ClassVar[str] = ""
    """The body that a reset puts elsewhere; in the model, which is why every thread has its own."""
    reads: ClassVar[tuple[str, ...]] = ()
    """Fields of `MjData` to read besides the positions of bodies and sites."""
    goal: ClassVar[Goal] = Goal()
    """What `to_target` and `in_place` are worked out from."""
    grip: ClassVar[Grip] = Grip()
    """What `cage` and `held` are worked out from; of no account for a task that does not use them."""
    tool_length: ClassVar[float] = 0.0
    """Metres along x from the tool's middle to its working end; 0 for a task without a tool."""

    def __init__(self, count: int, threads: int, tools: Sequence[Tool] | None = None):
        """
        Args:
            count: worlds.
            threads: that will call `begin` and `advance`.
            tools: of each world, if not Meta-World's own.
        """
        self.model = load(type(self))
        if tools is None:
            self._models = [copy.copy(self.model) if self.moved else self.model for _ in range(threads)]
            of_world = [self.model] * count
        else:
            self._models = of_world = [build(type(self), tool) for tool in tools]
        self._own_models, self._tools = tools is not None, tools
        self._pictures: dict[int, tuple[mujoco.MjModel, mujoco.MjData]] = {}
        self.data = [mujoco.MjData(model) for model in of_world]
        fields = ("xpos", "site_xpos", *self.reads)
        self.readings = {name: np.stack([getattr(data, name) for data in self.data]) for name in fields}
        self._views = [[getattr(data, name) for name in fields] for data in self.data]
        self._controls = [(data.mocap_pos[0], data.ctrl) for data in self.data]
        self.arm = np.array([self.body(name) for name in _ARM])
        self.tips = np.array([self.site(name) for name in _TIPS])
        self._moved = self.body(self.moved) if self.moved else -1
        self._body_pos = np.tile(self.model.body_pos[self._moved], (count, 1))
        self._body_views = [model.body_pos[self._moved] for model in self._models]
        self._settled = [_settle(model, self.hand) for model in (of_world if self._own_models else [self.model])]
        self.longer = np.zeros((count, 3))
        if tools is not None:
            self.longer[:, 0] = [self.tool_length * (tool.length - 1.0) for tool in tools]
        self.low = np.concatenate([_frame(_HAND_LOW, -1.0, -np.inf), self.goal_low])
        self.high = np.concatenate([_frame(_HAND_HIGH, 1.0, np.inf), self.goal_high])
        self.find()

    # ---- what a task defines

    def find(self) -> None:  # noqa: B027, some need nothing
        """Looks up what the task needs of its model, once."""

    def body_place(self, vector: np.ndarray) -> np.ndarray:
        """Where the body `moved` goes for a random vector."""
        return vector[-3:]

    def place(self, world: int, model: mujoco.MjModel, data: mujoco.MjData, vector: np.ndarray) -> None:
        """Puts the object where the vector says, and sets `start` and `target` of the world.

        As it stands: the vector is the place of a free object, and the goal.
        """
        self.start[world], self.target[world] = vector[:3], vector[3:]
        put(model, data, self.start[world], still=6)

    def prepare(self) -> None:
        """Works out what rewards need and an episode leaves as it is; called when episodes have begun."""
        self.aim[:], self.grip_start[:] = self.target, self.start
        self.margin[:] = self.away(self.start)

    @abstractmethod
    def objects(self) -> np.ndarray:
        """What is observed of the objects: position and quaternion of up to two of them, [world, at most 14]."""

    def matrix(self) -> np.ndarray | None:
        """The turn [world, 9] of the first object, if its quaternion is worked out from it and not among `objects`."""
        return None

    def thing(self, seen: np.ndarray) -> np.ndarray | None:
        """What should come to the goal [world, 3], if that is not the first object; from the observations."""
        return None

    def gripped(self, seen: np.ndarray) -> np.ndarray | None:
        """What the fingers should surround [world, 3], if that is not the first object; from the observations."""
        return None

    @abstractmethod
    def judge(self, seen: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rewards and successes [world] after a step, from the observations [world, 39] and actions [world, 4]."""

    @classmethod
    def shape(cls, spec: mujoco.MjSpec, tool: Tool) -> None:
        """Changes the tool in a scene.

        Raises:
            QuickstudyError: the task has no tool.
        """
        raise QuickstudyError(f"The scene '{cls.scene}' of Meta-World has no tool to change.")

    def drawn_body(self, model: mujoco.MjModel) -> int:
        """The body of a tool whose looks `shape` does not change, so that what touches is drawn instead; or -1."""
        return -1

    # ---- called in threads, for one world

    def begin(self, world: int, vector: np.ndarray, thread: int) -> None:
        """Starts an episode."""
        model, data = self._models[world if self._own_models else thread], self.data[world]
        mujoco.mj_setState(model, data, self._settled[world if self._own_models else 0], STATE)
        if self.moved:
            self._body_pos[world] = model.body_pos[self._moved] = self.body_place(vector)
        mujoco.mj_step(model, data)  # the last one of settling: what is derived is of the instant before, as it was
        self.tcp_start[world] = (data.site_xpos[self.tips[0]] + data.site_xpos[self.tips[1]]) / 2.0
        self.place(world, model, data, vector)
        self._read(world)

    def advance(self, world: int, pull: np.ndarray, action: np.ndarray, thread: int) -> None:
        """One control step, with the hand pulled to the place `pull`."""
        place = world if self._own_models else thread
        model, data, (mocap, control) = self._models[place], self.data[world], self._controls[world]
        if self.moved:
            self._body_views[place][:] = self._body_pos[world]
        mocap[:] = pull
        control[0] = action[3]
        control[1] = -action[3]
        mujoco.mj_step(model, data, SUBSTEPS)
        mujoco.mj_forward(model, data)
        self._read(world)

    # ---- called once for all worlds

    def away(self, thing: np.ndarray) -> np.ndarray:
        """How far a thing [world, 3] is from its aim."""
        return length((thing - self.aim) * self.goal.weights)

    def picture(self, world: int) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """What to draw of a world: the scene with everything that is only looked at."""
        if world not in self._pictures:
            tool = None if self._tools is None else self._tools[world]
            model = build(type(self), tool, visual=True)
            if tool is not None:
                _draw_what_touches(model, self.drawn_body(model))
            self._pictures[world] = model, mujoco.MjData(model)
        model, data = self._pictures[world]
        if self.moved:
            model.body_pos[self._moved] = self._body_pos[world]
        goal = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, "goal")
        if goal >= 0 and model.site_bodyid[goal] == 0:
            model.site_pos[goal] = self.target[world]
        state = np.empty(mujoco.mj_stateSize(model, STATE))
        mujoco.mj_getState(self.model, self.data[world], state, STATE)
        mujoco.mj_setState(model, data, state, STATE)
        mujoco.mj_forward(model, data)
        return model, data

    # ---- helpers for tasks

    def body(self, name: str) -> int:
        return int(self.model.body(name).id)

    def site(self, name: str) -> int:
        return int(self.model.site(name).id)

    def geom(self, name: str) -> int:
        return int(self.model.geom(name).id)

    def mesh(self, name: str) -> "Mesh":
        """A geom that is only looked at, so that the light model lacks it."""
        full = load(type(self), visual=True)
        geom = full.geom(name)
        turn = np.empty(9)
        mujoco.mju_quat2Mat(turn, geom.quat)
        return Mesh(self.body(full.body(geom.bodyid[0]).name), geom.pos.copy(), turn.reshape(3, 3))

    @property
    def xpos(self) -> np.ndarray:
        return self.readings["xpos"]

    @property
    def site_xpos(self) -> np.ndarray:
        return self.readings["site_xpos"]

    def _read(self, world: int) -> None:
        for reading, view in zip(self.readings.values(), self._views[world], strict=True):
            reading[world] = view


def _settle(model: mujoco.MjModel, hand: np.ndarray) -> np.ndarray:
    """The state one step before the hand has settled."""
    data = mujoco.MjData(model)
    data.mocap_pos[0], data.mocap_quat[0] = hand, _DOWN
    data.ctrl[:] = [-1.0, 1.0]
    mujoco.mj_step(model, data, _SETTLING - 1)
    state = np.empty(mujoco.mj_stateSize(model, STATE))
    mujoco.mj_getState(model, data, state, STATE)
    return state


def _draw_what_touches(model: mujoco.MjModel, body: int) -> None:
    for geom in np.flatnonzero(model.geom_bodyid == body):
        touches = model.geom_contype[geom] > 0
        model.geom_group[geom], model.geom_matid[geom] = (1 if touches else 4), -1
        model.geom_rgba[geom] = [0.3, 0.45, 0.8, 1.0]


class Mesh(NamedTuple):
    """Where a geom is on its body."""

    body: int
    place: np.ndarray
    turn: np.ndarray

    def position(self, xpos: np.ndarray, xmat: np.ndarray) -> np.ndarray:
        """[world, 3], from the fields of all bodies."""
        return xpos[:, self.body] + xmat[:, self.body].reshape(-1, 3, 3) @ self.place

    def matrix(self, xmat: np.ndarray) -> np.ndarray:
        """Its turn, [world, 9]."""
        return (xmat[:, self.body].reshape(-1, 3, 3) @ self.turn).reshape(-1, 9)


def put(
    model: mujoco.MjModel, data: mujoco.MjData, positions: Sequence[float] | np.ndarray, joint: int = 9, still: int = 0
) -> None:
    """Sets the joint positions from `joint` on, and the `still` velocities from `joint` on to zero.

    A free object comes after the arm's nine joints; the package keeps the turn that it has settled to.
    """
    data.qpos[joint : joint + len(positions)] = positions
    data.qvel[joint : joint + still] = 0.0
    mujoco.mj_forward(model, data)


def _quaternion_map() -> tuple[np.ndarray, np.ndarray]:
    """The linear map from a rotation matrix [9] to four multiples of its quaternion (x, y, z, w), [16]."""
    linear, constant = np.zeros((4, 4, 3, 3)), np.zeros((4, 4))
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        constant[i, i], linear[i, i, i, i], linear[i, i, j, j], linear[i, i, k, k] = 1, 1, -1, -1
        for other in (j, k):
            linear[i, other, other, i] = linear[i, other, i, other] = 1
        linear[i, 3, k, j] = linear[3, i, k, j] = 1
        linear[i, 3, j, k] = linear[3, i, j, k] = -1
        linear[3, 3, i, i] = 1
    constant[3, 3] = 1
    return linear.reshape(16, 9), constant.reshape(16)


_LINEAR, _CONSTANT = _quaternion_map()


def quaternion(matrix: np.ndarray) -> np.ndarray:
    """Rotation matrices [world, 9] to quaternions (x, y, z, w), with the sign that scipy's `Rotation.as_quat` gives."""
    multiples = (matrix @ _LINEAR.T + _CONSTANT).reshape(-1, 4, 4)
    largest = multiples.diagonal(axis1=1, axis2=2).argmax(1)
    chosen = multiples[np.arange(len(matrix)), largest]
    return chosen / length(chosen)[:, None]


def _frame(hand: tuple[float, ...], gripper: float, objects: float) -> np.ndarray:
    return np.tile([*hand, gripper, *[objects] * 14], 2)
