"""Many worlds together do exactly what each does alone."""

import mujoco
import numpy as np
import pytest

from quickstudy.errors import QuickstudyError
from quickstudy.simulation.worlds import Worlds

XML = """
<mujoco>
  <option timestep="0.004"/>
  <worldbody>
    <geom type="plane" size="1 1 .1"/>
    <body pos="0 0 {height}"><freejoint/><geom type="box" size=".05 .04 .03"/></body>
    <body name="hand" mocap="true" pos=".3 0 .1"><geom type="sphere" size=".05"/></body>
    <body pos="0 .4 .2"><joint name="hinge" axis="1 0 0"/><geom type="capsule" fromto="0 0 0 0 .2 0" size=".02"/></body>
  </worldbody>
  <actuator><motor joint="hinge"/></actuator>
</mujoco>
"""


def models(count: int) -> list[mujoco.MjModel]:
    return [mujoco.MjModel.from_xml_string(XML.format(height=0.05 + 0.02 * i)) for i in range(count)]


def inputs(step: int, count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([step, count])
    return {"ctrl": rng.normal(size=(count, 1)), "mocap_pos": rng.uniform(-0.2, 0.3, size=(count, 1, 3))}


@pytest.mark.parametrize("threads", [1, 3])
def test_worlds_equal_single_steps_exactly(threads: int):
    worlds = Worlds(models(7), reads=("qpos", "xpos"), threads=threads)
    alone = [(model, mujoco.MjData(model)) for model in models(7)]
    for step in range(40):
        writes = inputs(step, 7)
        readings = worlds.step(writes, substeps=3)
        for i, (model, data) in enumerate(alone):
            data.ctrl[:], data.mocap_pos[:] = writes["ctrl"][i], writes["mocap_pos"][i]
            mujoco.mj_step(model, data, 3)
            assert np.array_equal(readings["qpos"][i], data.qpos)
    worlds.close()


def test_readings_belong_to_the_present():
    worlds = Worlds(models(2), reads=("qpos", "xpos"), threads=1)
    readings = worlds.step(inputs(0, 2), substeps=10)
    assert np.array_equal(readings["xpos"][:, 1], readings["qpos"][:, :3])


def test_worlds_that_are_not_chosen_stay():
    worlds = Worlds(models(3), threads=2)
    before = worlds.readings["qpos"].copy()
    after = worlds.step(inputs(0, 3), substeps=5, chosen=np.array([1]))["qpos"]
    assert np.array_equal(after[[0, 2]], before[[0, 2]])
    assert not np.array_equal(after[1], before[1])


def test_each_calls_for_the_chosen_worlds_and_reads():
    worlds = Worlds(models(3), threads=2)

    def raise_box(index: int, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        data.qpos[2] = 10.0 + index

    assert np.array_equal(worlds.each(raise_box, np.array([0, 2]))["qpos"][[0, 2], 2], [10.0, 12.0])


def test_an_unstable_world_is_named():
    model = models(1)[0]
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    worlds = Worlds([model, model], threads=1)
    with pytest.raises(QuickstudyError, match="world 1 became unstable"):
        worlds.step({"qfrc_applied": np.array([[0.0] * 7, [np.nan] * 7])}, substeps=5)


def test_bad_input():
    with pytest.raises(QuickstudyError, match="at least one model"):
        Worlds([])
    with pytest.raises(QuickstudyError, match="at least one thread"):
        Worlds(models(1), threads=0)
    with pytest.raises(QuickstudyError, match="no array 'qposs'"):
        Worlds(models(1), reads=("qposs",))
    worlds = Worlds(models(2), threads=1)
    with pytest.raises(QuickstudyError, match=r"'ctrl' in the form \(2, 1\); got \(2, 3\)"):
        worlds.step({"ctrl": np.zeros((2, 3))})
    small = mujoco.MjModel.from_xml_string("<mujoco/>")
    with pytest.raises(QuickstudyError, match="cannot be read from all worlds together"):
        Worlds([models(1)[0], small])
