"""Pictures where something can draw them, a sentence where nothing can, and videos that browsers play."""

import io
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import mujoco
import numpy as np
import pytest
from PIL import Image

from quickstudy.errors import QuickstudyError
from quickstudy.simulation import rendering

draws = pytest.mark.skipif(not rendering.available(), reason=rendering.why_not())

SCENE = """
<mujoco>
  <visual><quality shadowsize="2048" offsamples="8"/><global offwidth="10" offheight="10"/></visual>
  <worldbody>
    <light pos="0 0 3"/>
    <body pos="0 0 .2"><freejoint/><geom size=".2" rgba="1 0 0 1"/></body>
    <camera name="front" pos="0 -2 .2" xyaxes="1 0 0 0 0 1"/>
    <camera name="away" pos="0 -2 .2" xyaxes="-1 0 0 0 0 1"/>
  </worldbody>
</mujoco>
"""


@pytest.fixture
def scene() -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


@pytest.fixture
def undecided() -> Iterator[None]:
    """As if this process had not yet looked for a way to draw."""
    rendering._backend.cache_clear()
    yield
    rendering._backend.cache_clear()


# ---- which way to draw


@pytest.mark.usefixtures("undecided")
def test_nothing_can_draw(monkeypatch: pytest.MonkeyPatch, scene: tuple[mujoco.MjModel, mujoco.MjData]) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(rendering, "_works", lambda backend: False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert not rendering.available()
    assert "apt-get install libosmesa6" in rendering.why_not()
    with pytest.raises(QuickstudyError, match="apt-get install libosmesa6"):
        rendering.frame(*scene, "front", 32, 32)


@pytest.mark.usefixtures("undecided")
@pytest.mark.parametrize(
    ("working", "display", "found"),
    [({"egl", "osmesa"}, "", "egl"), ({"osmesa"}, "", "osmesa"), ({"glfw", "egl"}, ":0", "glfw"), ({"glfw"}, "", "")],
)
def test_the_first_that_works(monkeypatch: pytest.MonkeyPatch, working: set[str], display: str, found: str) -> None:
    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.setenv("WAYLAND_DISPLAY", "")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(rendering, "_works", lambda backend: backend in working)
    assert rendering._backend() == found


@pytest.mark.usefixtures("undecided")
def test_what_the_user_says_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_works", lambda backend: False)
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert rendering._candidates() == ("osmesa",)
    assert "MUJOCO_GL=osmesa allows no other" in rendering.why_not()
    monkeypatch.setenv("MUJOCO_GL", "off")
    rendering._backend.cache_clear()
    assert rendering.why_not() == "Rendering is switched off by MUJOCO_GL=off: unset it to get pictures and videos."


def test_a_driver_that_crashes_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_PROBE", "import os; os.abort()")
    assert not rendering._works("egl")


# ---- pictures


@draws
def test_a_picture_and_its_camera(scene: tuple[mujoco.MjModel, mujoco.MjData]) -> None:
    model, data = scene
    picture = rendering.frame(model, data, "front", 64, 48)
    assert picture.shape == (48, 64, 3)
    assert picture.dtype == np.uint8
    assert picture[24, 32, 0] > 100
    assert picture[0, 0].max() == 0
    data.qpos[2] += 0.3
    mujoco.mj_forward(model, data)
    higher = rendering.frame(model, data, "front", 64, 48)
    rows = [np.nonzero(p[..., 0] > 50)[0].mean() for p in (picture, higher)]
    assert rows[1] < rows[0], "up in the world is up in the picture"
    assert rendering.frame(model, data, "away", 64, 48).max() == 0
    free = mujoco.MjvCamera()
    free.distance, free.lookat[:] = 2.0, (0, 0, 0.5)
    assert rendering.frame(model, data, free, 64, 48)[24, 32, 0] > 100


@draws
def test_the_model_is_left_as_it_was(scene: tuple[mujoco.MjModel, mujoco.MjData]) -> None:
    model, data = scene
    rendering.frame(model, data, "front", 64, 48)
    assert (model.vis.quality.shadowsize, model.vis.quality.offsamples) == (2048, 8)
    assert (model.vis.global_.offwidth, model.vis.global_.offheight) == (10, 10)


@draws
def test_few_renderers_are_kept(scene: tuple[mujoco.MjModel, mujoco.MjData]) -> None:
    pictures = [rendering.frame(*scene, "front", 16 + n, 16) for n in range(6)]
    assert [picture.shape[1] for picture in pictures] == [16, 17, 18, 19, 20, 21]
    assert len(rendering._kept.renderers) == rendering._KEPT
    assert np.array_equal(rendering.frame(*scene, "front", 16, 16), pictures[0])


@draws
def test_threads_draw_the_same(scene: tuple[mujoco.MjModel, mujoco.MjData]) -> None:
    expected = rendering.frame(*scene, "front", 32, 32)
    drawn: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: drawn.append(rendering.frame(*scene, "front", 32, 32))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(drawn) == 3
    assert all(np.array_equal(picture, expected) for picture in drawn)


@draws
def test_leaves_quietly() -> None:
    program = (
        "import mujoco; from quickstudy.simulation.rendering import frame; "
        f"model = mujoco.MjModel.from_xml_string({SCENE!r}); data = mujoco.MjData(model); "
        "mujoco.mj_forward(model, data); print(frame(model, data, 'front', 16, 16).shape)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "(16, 16, 3)", "")


def test_unknown_camera(scene: tuple[mujoco.MjModel, mujoco.MjData]) -> None:
    with pytest.raises(QuickstudyError, match=r"Unknown camera 'fron'\. Did you mean 'front'\? Known: away, front\."):
        rendering.frame(*scene, "fron", 16, 16)


# ---- files


def clip(count: int, height: int, width: int) -> list[np.ndarray]:
    """A grey ramp whose brightness rises by the frame."""
    ramp = np.linspace(0, 100, width).astype(np.uint8)[None, :, None]
    return [np.broadcast_to(ramp + 5 * n, (height, width, 3)).copy() for n in range(count)]


@pytest.mark.parametrize(("height", "width"), [(48, 64), (47, 63)])
def test_video_comes_back(tmp_path: Path, height: int, width: int) -> None:
    frames = clip(25, height, width)
    path = tmp_path / "folder" / "clip.mp4"
    rendering.write_video(path, iter(frames), fps=20)
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate) == 20.0
        read = [picture.to_ndarray(format="rgb24") for picture in file.decode(stream)]
    assert len(read) == 25
    for ours, theirs in zip(frames, read, strict=True):
        assert theirs.shape == (height // 2 * 2, width // 2 * 2, 3)
        assert np.abs(ours[: theirs.shape[0], : theirs.shape[1]].astype(float) - theirs).mean() < 4
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "the index comes first, so that play starts at once"
    assert [p.name for p in path.parent.iterdir()] == ["clip.mp4"]


def test_bad_frames(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_text("old")
    with pytest.raises(QuickstudyError, match="at least one frame; got none"):
        rendering.write_video(path, [], 20)
    with pytest.raises(QuickstudyError, match=r"uint8 \[height, width, 3\]; got float64 \[4, 4, 3\]"):
        rendering.write_video(path, [np.zeros((4, 4, 3))], 20)
    with pytest.raises(QuickstudyError, match="frames have one size"):
        rendering.write_video(path, [*clip(2, 16, 16), *clip(1, 18, 16)], 20)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


def test_nowhere_to_write(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(QuickstudyError, match=r"Could not write '.*clip\.mp4': (File exists|Not a directory)"):
        rendering.write_video(tmp_path / "file" / "clip.mp4", clip(2, 16, 16), 20)
    with pytest.raises(QuickstudyError, match="Could not write"):
        rendering.write_png(tmp_path / "file" / "a.png", clip(1, 16, 16)[0])


def test_contact_sheet(tmp_path: Path) -> None:
    frames = clip(5, 60, 80)
    sheet = rendering.contact_sheet(
        frames, ["box", "a caption that is far too long for one line or two", "", "x", "y"], 3
    )
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] == 4 + 3 * (80 + 4)
    assert np.array_equal(sheet[4:64, 4:84], frames[0])
    assert np.array_equal(sheet[4:64, 88:168], frames[1])
    assert (sheet[64:, 4:84].min(axis=(1, 2)) < 100).any(), "the caption is below its picture"
    rendering.write_png(tmp_path / "sheet.png", sheet)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO((tmp_path / "sheet.png").read_bytes()))), sheet)


def test_bad_contact_sheets() -> None:
    for frames, captions, columns in ([], [], 3), (clip(2, 8, 8), ["a"], 3), (clip(1, 8, 8), ["a"], 0):
        with pytest.raises(QuickstudyError, match="A contact sheet needs"):
            rendering.contact_sheet(frames, captions, columns)
