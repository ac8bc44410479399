"""A replay is what a film draws, recorded without drawing it."""

import mujoco

from quickstudy.simulation import rendering, replay

SCENE = """
<mujoco><worldbody>
  <geom type="plane" size="1 1 .1"/>
  <body pos="0 0 .2"><freejoint/><geom size=".2" rgba="1 0 0 1"/></body>
</worldbody></mujoco>
"""


def test_what_a_film_draws_is_recorded() -> None:
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)

    def film() -> None:
        for _ in range(3):
            mujoco.mj_step(model, data)
            assert not rendering.frame(model, data, "none", 8, 8).any(), "nothing is drawn"

    scene = replay.record(film)
    assert scene is not None
    assert len(scene) > 1000
    assert replay.record(lambda: None) is None


def test_the_viewer_has_a_place_for_a_scene() -> None:
    assert "</head>" in replay.viewer()
