"""Whether a robot can do what grasping asks of it; told before anything is trained, with the joint or body at fault."""

import functools

import mujoco
import numpy as np

from quickstudy.errors import LONGEST, QuickstudyError, listed
from quickstudy.families.grasping import scene
from quickstudy.families.grasping.arm import TABLE_CENTRE, Arm

NEEDS = (
    "A hand must be free in x, y, z and yaw, with its fingers down; docs/guides/own-robot.md says what a robot states."
)
_AXES = ("along x", "along y", "along z", "about the vertical (yaw)")
_STARTS = [np.array([x, y, z]) for x in (-0.06, 0.06) for y in (-0.06, 0.06) for z in (0.12, 0.20)]
"""Corners of where episodes start, metres from the table's middle, see `vector_env`."""
_YAW = 0.3
_NEAR, _STRAIGHT = 0.003, 0.05
"""Metres and radians that the hand may be off."""
_MOVE, _TURN, _SUBSTEPS, _STEPS = 0.05, 0.3, 20, 20
"""How far the hand is moved for a trial, in a second."""


@functools.cache
def check_robot(arm: Arm) -> None:
    """Goes from what the robot states to what its hand does in a simulation of some seconds.

    Raises:
        QuickstudyError: something is missing, or the hand cannot move, reach, follow or close.
    """
    name = type(arm).__name__
    for what in ("home", "joints", "widest", "clearance", "finger", "finger_joints"):
        if not hasattr(arm, what):
            raise QuickstudyError(f"The robot {name} does not state its {what}. {NEEDS}", LONGEST)
    try:
        model = scene.robot_and_table(arm, False).copy().compile()
    except Exception as error:  # a user's code, and MuJoCo with its model, may fail in any way
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise QuickstudyError(f"The model of the robot {name} cannot be made ({said}).") from error
    try:
        _Robot(arm, model).check()
    except _UnfitError as fault:
        raise QuickstudyError(f"The robot {name} {fault}. {NEEDS}", LONGEST) from None


class _UnfitError(Exception):
    """What a robot cannot do, as the end of a sentence."""


class _Robot:
    """A robot over its table, without an object."""

    def __init__(self, arm: Arm, model: mujoco.MjModel) -> None:
        self.arm, self.model, self.data = arm, model, mujoco.MjData(model)

    def check(self) -> None:
        self._has_what_is_named()
        self._joints_place_the_hand()
        self._gripper_alone_is_driven()
        self._hand_is_free()
        self._hand_reaches()
        self._fingers_face_each_other()
        self._hand_follows()
        self._fingers_close()

    def _has_what_is_named(self) -> None:
        model, arm = self.model, self.arm
        kinds = {
            mujoco.mjtObj.mjOBJ_SITE: ("site", ("tool", "right_touch", "left_touch")),
            mujoco.mjtObj.mjOBJ_JOINT: ("joint", arm.finger_joints),
        }
        for kind, (word, names) in kinds.items():
            for name in names:
                if mujoco.mj_name2id(model, kind, name) < 0:
                    raise _UnfitError(f"has no {word} named '{name}'")
        if model.nmocap != 1:
            raise _UnfitError(
                f"must have its hand carried by one mocap body, see carry_by_mocap; it has {model.nmocap}"
            )
        if not 1 <= arm.joints <= len(arm.home) <= model.nq:
            raise _UnfitError(
                f"places its hand by {arm.joints} joints and states {len(arm.home)} positions for home, but its model "
                f"has {model.nq}"
            )

    def _joints_place_the_hand(self) -> None:
        model, above = self.model, set()
        body = int(model.site("tool").bodyid[0])
        while body:
            above.add(body)
            body = int(model.body_parentid[body])
        for joint in range(self.arm.joints):
            if model.jnt_type[joint] not in (mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE):
                raise _UnfitError(f"places its hand by {self._joint(joint)}, which is neither a slide nor a hinge")
            if int(model.jnt_bodyid[joint]) not in above:
                raise _UnfitError(f"places its hand by {self._joint(joint)}, which the site 'tool' does not hang on")

    def _gripper_alone_is_driven(self) -> None:
        model, arm = self.model, self.arm
        controls = arm.control(np.zeros(1)).shape
        for number in range(model.nu):
            joint = int(model.actuator_trnid[number, 0])
            if model.actuator_trntype[number] == mujoco.mjtTrn.mjTRN_JOINT and joint < arm.joints:
                raise _UnfitError(
                    f"drives {self._joint(joint)} by the actuator '{model.actuator(number).name or number}': only the "
                    "gripper may have actuators, the hand is carried"
                )
        if controls != (1, model.nu):
            raise _UnfitError(f"has {model.nu} actuators, but its control gives {controls[-1]} values")

    def _hand_is_free(self) -> None:
        """At home each wanted motion must be one of the joints, without tilting the hand or moving it aside."""
        model, data, count = self.model, self.data, self.arm.joints
        data.qpos[: len(self.arm.home)] = self.arm.home
        jacobian = self._jacobian()
        fixed = [j for j in range(count) if model.jnt_limited[j] and np.ptp(model.jnt_range[j]) < 1e-6]
        jacobian[:, fixed] = 0.0
        for axis, row in zip(_AXES, (0, 1, 2, 5), strict=True):
            wanted = np.eye(6)[row]
            done = jacobian @ np.linalg.solve(jacobian.T @ jacobian + 1e-4 * np.eye(count), jacobian.T @ wanted)
            if np.linalg.norm(done - wanted) > 0.5:
                moving = [self._joint(j) for j in range(count) if abs(jacobian[row, j]) > 1e-6]
                held = f"; {self._joint(fixed[0])} has a range of no width" if fixed else ""
                by = f"{listed(moving)} would move it aside or tilt it as well" if moving else (
                    f"none of {listed([self._joint(j) for j in range(count)], 8)} moves it so"
                )  # fmt: skip
                raise _UnfitError(f"cannot move its hand {axis}: {by}{held}")

    def _hand_reaches(self) -> None:
        for start in _STARTS:
            for yaw in (-_YAW, _YAW):
                self._place(TABLE_CENTRE + start, yaw)
                place, turn = self._off(TABLE_CENTRE + start, yaw)
                if place > _NEAR or turn > _STRAIGHT:
                    ends = [self._joint(j) for j in range(self.arm.joints) if self._ends(j)]
                    at = ", ".join(f"{v:g}" for v in start)
                    mind = "no joint is at its end: mind home, tool_quat and where the robot stands"
                    cause = f"{listed(ends)} is at the end of its range" if ends else mind
                    raise _UnfitError(
                        f"does not bring its hand to ({at}) m from the table's middle with a yaw of {yaw:g}: it stays "
                        f"{1000 * place:.0f} mm and {turn:.2f} rad off; {cause}"
                    )

    def _fingers_face_each_other(self) -> None:
        self._place(TABLE_CENTRE + [0, 0, 0.15], 0.0)
        data = self.data
        tool = data.site("tool")
        apart = (data.site("left_touch").xpos - data.site("right_touch").xpos) @ tool.xmat.reshape(3, 3)
        self._between = float(np.linalg.norm(apart))
        if not abs(apart[1]) > 0.9 * self._between:
            raise _UnfitError(
                "must close its fingers along the y axis of the site 'tool'; from 'right_touch' to 'left_touch' it is "
                f"({', '.join(f'{v:.3f}' for v in apart)}) m in its axes"
            )
        for side in ("right", "left"):
            body = int(self.model.site(f"{side}_touch").bodyid[0])
            geoms = np.flatnonzero(self.model.geom_bodyid == body)
            if not (self.model.geom_conaffinity[geoms] & 1).any():
                raise _UnfitError(
                    f"has no geom that objects touch in body '{self._body(body)}', the one of '{side}_touch': give it "
                    "contype 0 and conaffinity 1"
                )

    def _hand_follows(self) -> None:
        """The carrier goes a little way along each axis; the hand must come along."""
        here = TABLE_CENTRE + [0.0, 0.0, 0.15]
        for axis, (label, move) in enumerate(zip(_AXES, [*np.eye(3) * _MOVE, np.zeros(3)], strict=True)):
            turn = _TURN if axis == 3 else 0.0
            self._place(here, 0.0)
            before = self._off(here + move, turn)
            for part in np.linspace(0, 1, _STEPS):
                self._carry(here + part * move, part * turn, -1.0)
            after = self._off(here + move, turn)
            which = axis == 3
            if not after[which] < 0.4 * before[which]:
                raise _UnfitError(
                    f"does not follow when its hand is carried {label}: {self._touches() or self._brake(axis)}"
                )

    def _fingers_close(self) -> None:
        opened, closed = (self._opening(grip) for grip in (-1.0, 1.0))
        arm = self.arm
        if arm.widest > self._between + 0.02:
            raise _UnfitError(
                f"states a widest opening of {arm.widest:g} m, but its touch sites are {self._between:.3f} m apart"
            )
        if abs(opened - arm.widest) > 0.015 or closed > arm.narrowest + 0.5 * (arm.widest - arm.narrowest):
            raise _UnfitError(
                f"opens its fingers to {opened:.3f} m at a grip of -1 and to {closed:.3f} m at 1, but states "
                f"{arm.widest:g} and {arm.narrowest:g}: mind control, opening, and the axes of "
                f"{listed(arm.finger_joints)}"
            )

    def _opening(self, grip: float) -> float:
        here = TABLE_CENTRE + [0.0, 0.0, 0.2]
        self._place(here, 0.0)
        for _ in range(_STEPS):
            self._carry(here, 0.0, grip)
        joints = [self.data.joint(joint) for joint in self.arm.finger_joints]
        travel, speed = (np.array([[float(getattr(j, kind)[0]) for j in joints]]) for kind in ("qpos", "qvel"))
        return float(self.arm.opening(travel, speed)[0][0])

    def _place(self, target: np.ndarray, yaw: float) -> None:
        mujoco.mj_resetData(self.model, self.data)
        self.arm.place_hand(self.model, self.data, target, yaw)
        self.data.ctrl[:] = self.arm.control(-np.ones(1))[0]
        mujoco.mj_forward(self.model, self.data)

    def _carry(self, target: np.ndarray, yaw: float, grip: float) -> None:
        self.data.mocap_pos[0], self.data.mocap_quat[0] = self.arm.mocap(target, np.array(yaw))
        self.data.ctrl[:] = self.arm.control(np.array([grip]))[0]
        mujoco.mj_step(self.model, self.data, _SUBSTEPS)

    def _off(self, target: np.ndarray, yaw: float) -> tuple[float, float]:
        """How far the tool is from where it should be, metres and radians."""
        site, rotation, error = self.data.site("tool"), np.empty(4), np.empty(3)
        mujoco.mju_mat2Quat(rotation, site.xmat)
        mujoco.mju_subQuat(error, rotation, self.arm.tool_quat(np.array(yaw)))
        return float(np.linalg.norm(site.xpos - target)), float(np.linalg.norm(error))

    def _jacobian(self) -> np.ndarray:
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        place, turn = np.empty((2, 3, self.model.nv))
        mujoco.mj_jacSite(self.model, self.data, place, turn, self.model.site("tool").id)
        return np.concatenate([place, turn])[:, : self.arm.joints]

    def _ends(self, joint: int) -> bool:
        low, high = self.model.jnt_range[joint]
        return bool(self.model.jnt_limited[joint]) and not low + 1e-6 < self.data.qpos[joint] < high - 1e-6

    def _touches(self) -> str:
        """What touches what, if anything does."""
        for contact in self.data.contact:
            one, other = (self._body(int(self.model.geom_bodyid[g])) for g in contact.geom)
            return f"body '{one}' touches body '{other}'"
        return ""

    def _brake(self, axis: int) -> str:
        """What may hold the joint that moves the hand most along an axis."""
        joint = int(np.abs(self._jacobian()[(0, 1, 2, 5)[axis]]).argmax())
        dof = int(self.model.jnt_dofadr[joint])
        held = [
            f"{word} {value:g}"
            for word, value in (
                ("damping", self.model.dof_damping[dof]),
                ("frictionloss", self.model.dof_frictionloss[dof]),
                ("stiffness", self.model.jnt_stiffness[joint]),
                ("armature", self.model.dof_armature[dof]),
            )
            if value > 0
        ]
        welds = "" if (self.model.eq_type == mujoco.mjtEq.mjEQ_WELD).any() else "no weld carries it, and "
        return f"{welds}{self._joint(joint)} has {listed(held) or 'no damping'}"

    def _joint(self, joint: int) -> str:
        name, body = self.model.joint(joint).name, self._body(int(self.model.jnt_bodyid[joint]))
        return f"joint '{name}' of body '{body}'" if name else f"the joint of body '{body}'"

    def _body(self, body: int) -> str:
        return self.model.body(body).name or str(body)
