"""What the grasping family asks of a robot: the seam between an arm with its gripper and everything else.

A robot of one's own is a subclass of `Arm` and two lines of a family, see docs/grasping.md.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from xml.etree import ElementTree

import mujoco
import numpy as np
from mujoco import mjtObj

from quickstudy.errors import QuickstudyError, sound

_INCLUDES, _MODEL_BYTES = 20, 16 << 20
"""Files within each other, and bytes of one, of a robot's model."""
TABLE_CENTRE = np.array([0.0, 0.6, 0.0])
"""Where objects lie, metres; a robot is set up so that it reaches 18 cm around this place and 32 cm above."""


class Arm(ABC):
    """A robot with two fingers that point down and close along the y axis of its site 'tool'.

    Its model holds, besides the robot itself: the site 'tool' midway between the fingers; the sites 'right_touch' and
    'left_touch', volumes in which contacts are felt; one mocap body that carries the hand by a weld, see
    `carry_by_mocap`; and no actuators but those of the gripper. Geoms that shall touch objects and the table have
    contype 0 and conaffinity 1. The joints that place the hand are the model's first.

    Attributes:
        home: joint positions with the hand over the middle of the table, every joint far from its limits; they are the
            model's first ones, and all others are at home where the model has them.
        joints: how many of `home` place the hand.
        widest, narrowest: the opening between the fingers, metres.
        tip_below_tool: how far the tips of the open fingers reach below the tool, metres.
        clearance: how high above the tool an object may reach before it meets the palm, metres.
        finger: size of the part of a finger that goes down beside an object, metres: thickness along the closing
            direction, width across it.
        finger_joints: their positions and speeds are what `opening` is given.
    """

    home: np.ndarray
    joints: int = 7
    widest: float
    narrowest: float = 0.0
    tip_below_tool: float = 0.008
    clearance: float
    finger: tuple[float, float]
    finger_joints: tuple[str, str]

    def check(self) -> None:
        """Raises QuickstudyError where the robot's model is not installed; asked before anything else."""
        return

    @abstractmethod
    def spec(self, visual: bool) -> mujoco.MjSpec:
        """The robot alone; `visual` with meshes and textures, otherwise without what only a camera would see.

        Both must move alike to the last digit: give every body that has no inertia of its own an explicit one.
        """

    @abstractmethod
    def control(self, grip: np.ndarray) -> np.ndarray:
        """Controls [world, actuator] for commands [world] from -1 (open) to 1 (close)."""

    def opening(self, travel: np.ndarray, speed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The opening between the fingers [world], metres, and how fast it grows, from what the joints say.

        As it stands: of two sliding fingers whose joints are at 0 where the gripper is open.

        Args:
            travel, speed: [world, 2] of `finger_joints`.
        """
        return self.widest - travel.sum(axis=1), -speed.sum(axis=1)

    def tips(self, opening: np.ndarray) -> np.ndarray:
        """How far the finger tips reach below the tool [world], metres; the hand keeps that far above the table."""
        return np.full_like(opening, self.tip_below_tool)

    def tool_quat(self, yaw: np.ndarray) -> np.ndarray:
        """The orientation [..., 4] of the site 'tool', fingers down, turned by yaw [...] about the vertical."""
        none = np.zeros_like(yaw)
        return np.stack([np.cos(yaw / 2), none, none, np.sin(yaw / 2)], axis=-1)

    def mocap(self, target: np.ndarray, yaw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Place [..., 3] and orientation [..., 4] of the mocap body that carries the tool to `target` with a yaw."""
        return target, self.tool_quat(yaw)

    def place_hand(self, model: mujoco.MjModel, data: mujoco.MjData, target: np.ndarray, yaw: float) -> None:
        """Sets the joints so that the tool is at `target` [3] with a yaw, by damped least squares from home."""
        site, arm = model.site("tool").id, self.joints
        low, high = np.where(model.jnt_limited[:arm, None], model.jnt_range[:arm], [-np.inf, np.inf]).T
        data.qpos[: len(self.home)] = self.home
        place, turn, rotation = np.empty((3, model.nv)), np.empty((3, model.nv)), np.empty(4)
        wanted, error = self.tool_quat(np.array(yaw)), np.empty(6)
        for _ in range(20):
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            mujoco.mj_jacSite(model, data, place, turn, site)
            mujoco.mju_mat2Quat(rotation, data.site_xmat[site])
            mujoco.mju_negQuat(rotation, rotation)
            mujoco.mju_mulQuat(rotation, wanted, rotation)
            mujoco.mju_quat2Vel(error[3:], rotation, 1.0)
            error[:3] = target - data.site_xpos[site]
            if np.abs(error).max() < 1e-6:
                break
            jacobian = np.concatenate([place, turn])[:, :arm]
            step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 1e-4 * np.eye(6), error)
            data.qpos[:arm] = np.clip(data.qpos[:arm] + step, low, high)


def read_model(path: Path) -> mujoco.MjSpec:
    """A robot's model from an MJCF file that somebody else may have written, whose parts all lie in its folder.

    Raises:
        QuickstudyError: it is not readable, or includes or names a file outside of its folder.
    """
    path = Path(path)
    with sound(f"'{path}' is not a readable MJCF file"):
        _check_parts(path, path.parent.resolve(), [])
        return mujoco.MjSpec.from_file(str(path))


def _check_parts(path: Path, home: Path, above: list[Path]) -> None:
    """Raises QuickstudyError where a file of a model, or one that it includes, names what lies outside of `home`."""
    if path in above or len(above) > _INCLUDES or path.stat().st_size > _MODEL_BYTES:
        raise QuickstudyError(f"'{path}' includes itself, or is larger than a model.")
    root = ElementTree.parse(path).getroot()
    named = [(one.tag, key, value) for one in root.iter() for key, value in one.items() if key.startswith("file")]
    named += [
        (one.tag, key, value)
        for one in root.iter("compiler")
        for key, value in one.items()
        if key in ("meshdir", "texturedir", "assetdir")
    ]
    for tag, _, value in named:
        place = path.parent / value
        if Path(value).is_absolute() or ".." in Path(value).parts or not place.resolve().is_relative_to(home):
            raise QuickstudyError(f"'{path}': its {tag} '{value[:60]}' lies outside of the folder of the model.")
        if tag == "include" and place.is_file():
            _check_parts(place, home, [*above, path])


def carry_by_mocap(spec: mujoco.MjSpec) -> None:
    """Adds a mocap body and welds the site 'tool' to it, softly, so that a blocked hand does not push without limit."""
    carrier = spec.worldbody.add_body(name="carrier", mocap=True)
    carrier.add_site(name="carrier", size=[0.004] * 3, rgba=[0, 0, 0, 0])
    weld = spec.add_equality(name="carry", type=mujoco.mjtEq.mjEQ_WELD, objtype=mjtObj.mjOBJ_SITE)
    weld.name1, weld.name2 = "carrier", "tool"
    weld.solref = [0.03, 1.0]
    weld.data[10] = 5.0  # how much a radian counts, in metres


def furnish(spec: mujoco.MjSpec) -> None:
    """Adds a table top, lights and a sky to look at, for a robot whose model has none; nothing touches them."""
    spec.worldbody.add_geom(
        name="table_top", type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.5, 0.75, 0.02], pos=TABLE_CENTRE - [0, 0.15, 0.0205],
        contype=0, conaffinity=0, rgba=[0.62, 0.55, 0.47, 1.0],
    )  # fmt: skip
    spec.add_texture(
        name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=[0.85, 0.89, 0.94], rgb2=[0.55, 0.6, 0.66], width=64, height=384,
    )  # fmt: skip
    for side in (-1.0, 1.0):
        spec.worldbody.add_light(
            pos=TABLE_CENTRE + [0.7 * side, 0.8, 1.2], dir=[-0.45 * side, -0.5, -0.75], diffuse=[0.55] * 3,
            directional=True, castshadow=False,
        )  # fmt: skip
