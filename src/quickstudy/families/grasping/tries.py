"""Grasping by tries: up to five attempts at an object that nobody showed, each knowing how those before it ended.

Objects, robot and physics are those of `quickstudy.families.grasping.family`, and so is success: lifted by 10 cm and still held,
unslipped and upright, a second later. The robot sees the pose of a tag that is fixed to the object, and neither its
shape, size or height nor where it must be held.

A try is one decision, not a policy of control steps: where the hand goes down (x, y and height, seen from the tag) and
how it is turned. A fixed motion does the rest in full physics: the open hand goes down there, closes, and lifts. What
is to be learned here is what to try next after what happened; how to move a hand is the matter of the imitation family,
whose policies would need some hundred decisions for each bit of experience. So a try costs about 40 control steps of
simulation and one of the learner's, and a trial of five tries is short enough to be learned from in minutes on two
cores. The way from the hand's start to above the object is free and is not simulated. There is no width to decide: the
fingers always go down fully open, the object's width is what they feel.

An episode is one try in two steps. In the first one all observations are alike (nothing is known of this try), and the
action is the decision; in the second the robot sees what came of it, `OBSERVATION`, and its action does nothing. So
what happened reaches a learner through its memory or its adaptation alone: a policy without either is one that does not
adapt. The object is put down anew for every try; being nudged does not count as a loss.

The reward of a try is 0.2 if the fingers closed on something, + 0.3 times how far it was raised, of 10 cm, + 0.5 for
success: all of it known to a real robot by its fingers and by the tag.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import mujoco
import numpy as np

from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.families.grasping.episode import (
    LIFT,
    LIFT_GOAL,
    MAX_STEP,
    MAX_TURN,
    OBSERVATION_SCALE,
    SAFE_HEIGHT,
    Episodes,
)
from quickstudy.families.grasping.family import Grasping, build
from quickstudy.families.grasping.scene import SENSORS, rotate, wrapped
from quickstudy.simulation.old_vector_env import StepResult, Symmetry, TrialsOf, VectorEnv
from quickstudy.task import Task

TRIES = 5
"""Of a trial."""
DECISION = ("x", "y", "height", "yaw")
MIDDLE = np.array([0.0, 0.0, 0.045, 0.0])
REACH = np.array([0.06, 0.06, 0.035, 1.0])
"""A decision d is the grasp MIDDLE + REACH * d in the tag's frame: metres, metres above the table, radians."""
OBSERVATION = (
    "tried",
    *(f"closed_{name}" for name in DECISION),
    "opening",
    "right_down",
    "left_down",
    "touch",
    "raised",
    "lean_x",
    "lean_y",
    "lost",
    "pushed_x",
    "pushed_y",
    "sunk",
    "turned",
    "tipped_x",
    "tipped_y",
)
"""What is seen after a try; all of it is 0 before. 'closed_*': where the hand was when it had closed, seen from the tag
as a decision is: fingers push an object into their middle, so this is where it wants to be held. 'opening' then, in
units of 10 cm; the forces on each finger when the hand had gone down, and what both pads felt when closed, 1 being
firm; 'raised': the highest lift of 10 cm; the sines of the largest lean of the object in the lift, towards the tag's x
and y; 'lost': it fell or slipped after it was lifted. The last six are how the tag had moved when the hand had closed,
seen from where it was before, in the units of a decision, and the sines of the lean then: what is tall tips over, what
is round rolls away."""

DOWN, CLOSE, UP = 13, 8, 14
"""Control steps of 0.05 s for going down, closing, and going up; then the hand waits until a second is over."""
HELD, RAISED, SUCCESS = 0.2, 0.3, 0.5
"""Parts of the reward."""
_FELT = 0.05
"""Touch from which on the fingers hold something; a firm one is 1."""
_FORCE = 10.0  # newton that count as firm
_HOPE = 0.05
"""Metres below which an object that should be up by now is given up."""


def grasp(decisions: np.ndarray) -> np.ndarray:
    """Grasps [..., 4] in the tag's frame that decisions [..., 4] of -1..1 stand for: metres and radians."""
    return MIDDLE + REACH * np.clip(decisions, -1.0, 1.0)


def reward(held: np.ndarray, raised: np.ndarray, success: np.ndarray) -> np.ndarray:
    """The rewards of tries, all [...]; `raised` is the highest lift in units of 10 cm."""
    return HELD * held + RAISED * np.clip(raised, 0.0, 1.0) + SUCCESS * success


def mirror(axis: Literal["x", "y"]) -> Symmetry:
    """What a trial looks like when the tag's x or y axis points the other way.

    Hand and fixed motion are the same on both sides, and so is where a tag may be. An L or a T with its bar on the
    other side is no task of the family, but an object as good as any.
    """

    def matrix(names: Sequence[str]) -> np.ndarray:
        return np.diag([-1.0 if name.split("_")[-1] in (axis, "yaw", "turned") else 1.0 for name in names])

    observation = matrix(OBSERVATION)
    if axis == "y":  # the fingers are beside each other along y
        places = [OBSERVATION.index("right_down"), OBSERVATION.index("left_down")]
        observation[places] = observation[places[::-1]]
    return Symmetry(observation, matrix(DECISION))


class TriesEnv(VectorEnv):
    """A hand and an object of some tasks for each lane; a lane's tries from the first on are its trial.

    Args:
        threads: that step the worlds; by default one for each core. Results do not depend on it.
    """

    action_size, horizon = len(DECISION), 2

    def __init__(self, family: Grasping, tasks: Sequence[Task], episodes_per_task: int, threads: int | None) -> None:
        self.tasks, self.episodes_per_task, self._shape = (
            list(tasks),
            episodes_per_task,
            (len(tasks), episodes_per_task),
        )
        self._arm = family.arm
        models = [model for t in tasks for model in [build(family.check(t), arm=family.arm)] * episodes_per_task]
        self._state = Episodes(models, threads, family.arm)
        self._seen = np.zeros((len(models), len(OBSERVATION)))
        self._ever = np.zeros(len(models), bool)

    def reset(self, rng: np.random.Generator) -> np.ndarray:
        self._generators, self._tried = rng.spawn(len(self._seen)), False
        self._seen[:] = 0.0
        return self._observe()

    def step(self, actions: np.ndarray, alive: np.ndarray) -> StepResult:
        state, now = self._state, np.flatnonzero(alive)
        no, rewards = np.zeros(self._shape, bool), np.zeros(len(self._seen))
        looked = self._tried
        if not looked and len(now):
            self._try(grasp(actions.reshape(len(self._seen), -1)), now)
            held, raised = self._seen[:, OBSERVATION.index("touch")] > _FELT, self._seen[:, OBSERVATION.index("raised")]
            rewards[now] = reward(held, raised, state.success)[now]
            self._ever[now] |= state.success[now]
            self._tried = True
        success = state.success.reshape(self._shape).copy()
        return StepResult(self._observe(), rewards.reshape(self._shape), ~no if looked else no, success, no)

    def expert_action(self) -> np.ndarray:
        """The grasp that the imitation family's expert would make, who sees what is hidden."""
        nothing = np.full((*self._shape, len(DECISION)), np.nan)
        return nothing if self._tried else np.broadcast_to(right(self.tasks)[:, None], nothing.shape)

    def measures(self) -> dict[str, np.ndarray]:
        """'success-by-try': whether this try of the lane or one before it succeeded."""
        return {"success-by-try": self._ever.reshape(self._shape).astype(np.float64)}

    def close(self) -> None:
        self._state.worlds.close()

    def _observe(self) -> np.ndarray:
        return self._seen.astype(np.float32).reshape(*self._shape, -1)

    def _try(self, grasps: np.ndarray, now: np.ndarray) -> None:
        """Tries grasps [world, 4] in the worlds `now`, and notes in `_seen` what came of them."""
        state, seen = self._state, self._seen
        state.reset([self._generators[i] for i in now], now)
        goal = self._above(grasps, now)
        tag, yaw = self._read("tag").copy(), self._tag_yaw()
        seen[now, 0] = 1.0
        raised, lean = np.zeros(len(seen)), np.zeros((len(seen), 2))
        for t in range(DOWN + CLOSE + UP + 25):
            if not state.active.any():
                break
            if t == DOWN:
                seen[now, 6:8] = np.tanh(self._read("pads") / _FORCE)[now]
            if t == DOWN + CLOSE:
                seen[now, 1:6], seen[now, 8] = self._closed()[now], self._feel()[now]
                seen[now, 13:] = self._moved(tag, yaw)[now]
                state.active &= self._feel() > _FELT
                goal[:, 2] += LIFT_GOAL
            if t == DOWN + CLOSE + UP:
                state.active &= self._lift() > _HOPE
            before = state.active.copy()
            state.step(self._towards(goal, grip=-1.0 if t < DOWN else 1.0))
            if t >= DOWN + CLOSE:
                raised = np.where(before, np.maximum(raised, self._lift() / LIFT), raised)
                tilt = self._lean()
                more = before & (np.linalg.norm(tilt, axis=1) > np.linalg.norm(lean, axis=1))
                lean = np.where(more[:, None], tilt, lean)
        state.active[:] = False
        seen[now, 9:13] = np.column_stack([np.clip(raised, 0.0, 1.5), lean, state.slipped])[now]

    def _above(self, grasps: np.ndarray, now: np.ndarray) -> np.ndarray:
        """Puts the open hands of the worlds `now` above the grasps; returns where they shall go down, [world, 4]."""
        state, tag = self._state, self._read("tag")
        yaw = self._tag_yaw()
        place = tag[:, :2] + rotate(grasps[:, :2], yaw)
        goal = np.column_stack([place, grasps[:, 2] + tag[:, 2], grasps[:, 3] + yaw])
        state.target[now] = np.column_stack([place, np.full(len(place), SAFE_HEIGHT)])[now]
        state.target_yaw[now] = goal[now, 3]

        def put(index: int, model: mujoco.MjModel, data: mujoco.MjData) -> None:
            target, turn = state.target[index], state.target_yaw[index]
            self._arm.place_hand(model, data, target, turn)
            data.mocap_pos[0], data.mocap_quat[0] = self._arm.mocap(target, turn)

        state.worlds.each(put, now)
        return goal

    def _towards(self, goal: np.ndarray, grip: float) -> np.ndarray:
        """The imitation family's actions [world, 5] that bring the hands to goals [world, 4] as fast as they may go."""
        state = self._state
        off = np.column_stack([goal[:, :3] - state.target, goal[:, 3] - state.target_yaw])
        off[:, :2] = rotate(off[:, :2], -self._tag_yaw())
        return np.column_stack([off / [MAX_STEP, MAX_STEP, MAX_STEP, MAX_TURN], np.full(len(off), grip)])

    def _closed(self) -> np.ndarray:
        """The hand in the tag's frame as a decision, and the opening in units of 10 cm, [world, 5].

        All three axes count: a sphere has rolled on the way into the fingers' middle.
        """
        x, z = self._read("tag_x"), self._read("object_z")
        axes = np.stack([x, np.cross(z, x), z], 1)
        place, across = (axes @ v[..., None] for v in (self._read("tool") - self._read("tag"), self._read("hand_y")))
        hand = np.column_stack([place[..., 0], np.arctan2(-across[:, 0], across[:, 1])])
        opening = (self._state.observe() * OBSERVATION_SCALE)[:, 4] / 0.1
        return np.column_stack([np.clip((hand - MIDDLE) / REACH, -2.0, 2.0), opening])

    def _moved(self, tag: np.ndarray, yaw: np.ndarray) -> np.ndarray:
        """How tags have moved from places [world, 3] and yaws [world], and how objects lean, [world, 6]."""
        way = self._read("tag") - tag
        turn = wrapped(self._tag_yaw() - yaw)
        moved = np.column_stack([rotate(way[:, :2], -yaw), way[:, 2], turn]) / REACH
        return np.column_stack([np.clip(moved, -2.0, 2.0), rotate(self._read("object_z")[:, :2], -yaw)])

    def _feel(self) -> np.ndarray:
        return np.asarray(np.tanh(self._read("pads").min(axis=1) / _FORCE))

    def _lift(self) -> np.ndarray:
        return self._read("tag")[:, 2] - self._state.start_height

    def _lean(self) -> np.ndarray:
        """Sines of the object's lean towards the tag's x and y, [world, 2]."""
        return rotate(self._read("object_z")[:, :2], -self._tag_yaw())

    def _tag_yaw(self) -> np.ndarray:
        axis = self._read("tag_x")
        return np.arctan2(axis[:, 1], axis[:, 0])

    def _read(self, name: str) -> np.ndarray:
        return self._state.worlds.readings["sensordata"][:, SENSORS[name]]


class GraspingTries(TrialsOf):
    """The tasks of `quickstudy.families.grasping.family.Grasping`, learned by tries; see the module's text.

    The metric is whether one of the tries so far succeeded; beside it success of each try, and return.
    """

    name = Grasping.name
    sizes: Mapping[str, int] = Grasping.sizes
    protocol = (
        "shape, size, height and grasp point are hidden, an episode is one try: a grasp is decided, a fixed motion "
        "carries it out, and what came of it is seen; the object's pose and the action noise are drawn anew for every "
        "try; success is lifted by 10 cm and still held, unslipped and upright, a second later; success-by-try is "
        "whether a try up to this one succeeded, within a lane"
    )
    metric, secondary_metrics = "success-by-try", ("success", "return")
    observation_size, action_size = len(OBSERVATION), len(DECISION)
    hidden_size, horizon = Grasping.hidden_size, TriesEnv.horizon
    has_expert = True
    symmetries = (mirror("x"), mirror("y"))

    def __init__(self, threads: int | None = None) -> None:
        """
        Args:
            threads: that step the worlds; by default one for each core. Results do not depend on it.
        """
        self._of = Grasping(threads=threads)
        super().__init__(self._of)
        self.threads = threads

    def vector_env(self, tasks: Sequence[Task], episodes_per_task: int) -> VectorEnv:
        """`episodes_per_task` hands and objects of each task, every lane at the beginning of a trial.

        Raises:
            QuickstudyError: no task or no lane, or a task of another family.
        """
        if not tasks or episodes_per_task < 1:
            raise QuickstudyError(
                f"Trials need tasks and episodes_per_task; got {len(tasks)} tasks, {episodes_per_task} episodes_per_task."
            )
        return TriesEnv(self._of, tasks, episodes_per_task, self.threads)

    def demonstrate(self, tasks: Sequence[Task], count: int, seed: int) -> list[list[Demonstration]]:
        raise QuickstudyError(
            f"Family '{self.name}' by tries has no demonstrations; those of 'quickstudy train {self.name}' are of "
            "control steps."
        )


def right(tasks: Sequence[Task]) -> np.ndarray:
    """The decisions [task, 4] that the imitation family's expert would make, who sees what is hidden."""
    names = ("grasp_x", "grasp_y", "grasp_height", "grasp_yaw")
    known = np.array([[task.parameters[name] for name in names] for task in tasks])
    return np.asarray((known - MIDDLE) / REACH)
