"""Models of robots that somebody else wrote: their parts lie in their folder, or they are refused."""

import numpy as np
import pytest

from quickstudy.errors import QuickstudyError
from quickstudy.families.grasping.arm import read_model

CUBE = "".join(f"v {x} {y} {z}\n" for x in (0, 1) for y in (0, 1) for z in (0, 1)) + (
    "f 1 2 4\nf 1 4 3\nf 5 7 8\nf 5 8 6\nf 1 5 6\nf 1 6 2\nf 3 4 8\nf 3 8 7\nf 1 3 7\nf 1 7 5\nf 2 6 8\nf 2 8 4\n"
)


def write(folder, include="part.xml", mesh="m.obj", meshdir="."):
    folder.mkdir(exist_ok=True)
    (folder / "m.obj").write_text(CUBE)
    (folder / "part.xml").write_text("<mujocoinclude><option timestep='0.01'/></mujocoinclude>")
    (folder / "arm.xml").write_text(
        f"<mujoco><compiler meshdir='{meshdir}'/><include file='{include}'/>"
        f"<asset><mesh name='m' file='{mesh}'/></asset>"
        "<worldbody><body><joint/><geom type='mesh' mesh='m'/></body></worldbody></mujoco>"
    )
    return folder / "arm.xml"


def test_a_model_whose_parts_lie_beside_it(tmp_path):
    model = read_model(write(tmp_path / "robot")).compile()
    assert model.opt.timestep == 0.01
    assert np.isfinite(model.body_mass).all()


@pytest.mark.parametrize("how", ["mesh", "include", "meshdir", "absolute", "link", "deep"])
def test_what_leads_outside_is_refused(tmp_path, how):
    (tmp_path / "secret.xml").write_text("<mujocoinclude/>")
    (tmp_path / "secret.obj").write_text(CUBE)
    path = write(
        tmp_path / "robot",
        **{
            "mesh": {"mesh": "../secret.obj"}, "include": {"include": "../secret.xml"}, "meshdir": {"meshdir": ".."},
            "absolute": {"include": str(tmp_path / "secret.xml")}, "link": {"mesh": "linked.obj"}, "deep": {},
        }[how],
    )  # fmt: skip
    (tmp_path / "robot/linked.obj").symlink_to(tmp_path / "secret.obj")
    if how == "deep":
        (tmp_path / "robot/part.xml").write_text("<mujocoinclude><include file='../secret.xml'/></mujocoinclude>")
    with pytest.raises(QuickstudyError, match="lies outside of the folder of the model"):
        read_model(path)


def test_a_model_that_includes_itself_or_is_none(tmp_path):
    with pytest.raises(QuickstudyError, match="includes itself"):
        read_model(write(tmp_path / "robot", include="arm.xml"))
    (tmp_path / "robot/arm.xml").write_text("<mujoco")
    with pytest.raises(QuickstudyError, match="is not a readable MJCF file"):
        read_model(tmp_path / "robot/arm.xml")
