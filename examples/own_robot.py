"""A robot of your own in the grasping family: a gantry with a parallel gripper, from an MJCF text.

`python examples/own_robot.py` lets the expert grasp with it. Everything else takes `GraspingGantry()` as it takes any
family: DemonstrationSet.record, meta_train, evaluate. docs/grasping.md says what each line is for.
"""

import mujoco
import numpy as np

from quickstudy.families.grasping.arm import Arm, carry_by_mocap, furnish
from quickstudy.families.grasping.family import Grasping

MJCF = """
<mujoco>
  <default>
    <joint type="slide" damping="20"/>
    <geom type="box" contype="0" conaffinity="1" condim="4" friction="0.3 0.004 0.002" solref="0.006 1"/>
    <default class="finger"> <joint range="0 0.05" damping="100" armature="0.5"/> </default>
  </default>
  <worldbody>
    <body name="x"> <inertial pos="0 0 0" mass="0.5" diaginertia="1e-3 1e-3 1e-3"/> <joint axis="1 0 0"/>
      <body name="y"> <inertial pos="0 0 0" mass="0.5" diaginertia="1e-3 1e-3 1e-3"/> <joint axis="0 1 0"/>
        <body name="z"> <inertial pos="0 0 0" mass="0.5" diaginertia="1e-3 1e-3 1e-3"/> <joint axis="0 0 1"/>
          <body name="hand"> <joint type="hinge" axis="0 0 1" damping="1"/>
            <site name="tool"/>
            <geom name="palm" size="0.02 0.06 0.015" pos="0 0 0.07" mass="0.3"/>
            <body name="right" pos="0 -0.05 0.02"> <joint name="right" axis="0 1 0" class="finger"/>
              <geom size="0.006 0.005 0.03" pos="0.006 -0.005 0" mass="0.05"/>
              <geom size="0.006 0.005 0.03" pos="-0.006 -0.005 0" mass="0.05"/>
              <site name="right_touch" type="box" size="0.014 0.007 0.032" pos="0 -0.005 0" rgba="0 0 0 0"/>
            </body>
            <body name="left" pos="0 0.05 0.02"> <joint name="left" axis="0 -1 0" class="finger"/>
              <geom size="0.006 0.005 0.03" pos="0.006 0.005 0" mass="0.05"/>
              <geom size="0.006 0.005 0.03" pos="-0.006 0.005 0" mass="0.05"/>
              <site name="left_touch" type="box" size="0.014 0.007 0.032" pos="0 0.005 0" rgba="0 0 0 0"/>
            </body>
          </body>
        </body>
      </body>
    </body>
  </worldbody>
  <equality> <joint joint1="right" joint2="left" polycoef="0 1 0 0 0"/> </equality>
  <actuator>
    <motor joint="right" gear="20" ctrlrange="-1 1"/> <motor joint="left" gear="20" ctrlrange="-1 1"/>
  </actuator>
</mujoco>
"""


class Gantry(Arm):
    """Three slides and a turning hand; its joints are where the tool is, so home is above the table's middle."""

    home, joints = np.array([0.0, 0.6, 0.15, 0.0]), 4
    widest, tip_below_tool, clearance = 0.10, 0.01, 0.05
    finger, finger_joints = (0.01, 0.024), ("right", "left")

    def spec(self, visual: bool) -> mujoco.MjSpec:
        spec = mujoco.MjSpec.from_string(MJCF)
        carry_by_mocap(spec)
        if visual:
            furnish(spec)
        return spec

    def control(self, grip: np.ndarray) -> np.ndarray:
        return np.repeat(grip[:, None], 2, axis=1)


class GraspingGantry(Grasping):
    """The same tasks for this robot."""

    name, arm = "grasping-gantry", Gantry()


def main(tasks: int = 40) -> float:
    """The share of unseen objects that the expert lifts with this robot."""
    family = GraspingGantry()
    return float(family.run_expert(family.tasks("shapes", tasks), 1, seed=0)["success"].mean())


if __name__ == "__main__":
    print(f"With the gantry the expert lifts {main():.0%} of 40 unseen objects.")
