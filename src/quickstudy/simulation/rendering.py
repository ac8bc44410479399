"""Pictures and videos of MuJoCo scenes, with or without a display.

On a machine without a display, EGL or OSMesa draws: whichever a short-lived process of its own finds to work, because a
broken driver may end the process that tries it. Where neither works, `available` is False and `why_not` says what to
install; nothing else in the package needs a picture.
"""

import atexit
import functools
import importlib
import importlib.util
import os
import subprocess
import sys
import textwrap
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import mujoco
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from quickstudy.errors import QuickstudyError, unknown
from quickstudy.io.files import partial

_KEPT = 4
"""Renderers that a thread keeps; each holds its model and a frame buffer."""

_OFF = ("disable", "disabled", "off", "false", "0")
_DEFAULT = ("enable", "enabled", "on", "true", "1", "")

_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string(
    "<mujoco><worldbody><light pos='0 0 3'/><geom size='.1'/><camera name='c' pos='0 -1 0' xyaxes='1 0 0 0 0 1'/>"
    "</worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 16, 16)
renderer.update_scene(data, "c")
assert renderer.render().any()
print("drawn", flush=True)
"""


# ---- which way to draw


def available() -> bool:
    """Whether this machine can draw; the first call may take a few seconds."""
    return _backend() != ""


def why_not() -> str:
    """One sentence on what to do where `available` is False; empty where it is True."""
    if available():
        return ""
    wanted = os.environ.get("MUJOCO_GL", "").strip().lower()
    if wanted in _OFF:
        return f"Rendering is switched off by MUJOCO_GL={wanted}: unset it to get pictures and videos."
    tried = " and ".join(_candidates())
    chosen = f" (MUJOCO_GL={wanted} allows no other)" if wanted not in _DEFAULT else ""
    if not sys.platform.startswith("linux"):
        return f"Nothing here can draw MuJoCo scenes: {tried} did not work{chosen}."
    return (
        f"Nothing here can draw MuJoCo scenes, tried {tried}{chosen}: run 'sudo apt-get install libosmesa6' (or, "
        "for EGL, 'sudo apt-get install libegl1 libgl1-mesa-dri') to get pictures and videos."
    )


@functools.cache
def _backend() -> str:
    """The first of the candidates that draws a picture in a process of its own, or an empty string."""
    found = next((candidate for candidate in _candidates() if _works(candidate)), "")
    if found:
        os.environ["MUJOCO_GL"] = found  # for processes that this one starts, and for Gymnasium's own renderer
    return found


def _candidates() -> tuple[str, ...]:
    wanted = os.environ.get("MUJOCO_GL", "").strip().lower()
    if wanted in _OFF:
        return ()
    if wanted not in _DEFAULT:
        return (wanted,)
    if sys.platform == "darwin":
        return ("cgl",)
    if not sys.platform.startswith("linux"):
        return ("glfw",)
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return ("glfw", "egl", "osmesa") if display else ("egl", "osmesa")


def _works(backend: str) -> bool:
    environment = {**os.environ, "MUJOCO_GL": backend}
    environment.pop("PYOPENGL_PLATFORM", None)  # each backend sets its own
    try:
        result = subprocess.run(
            [sys.executable, "-c", _PROBE], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "drawn" in result.stdout  # a driver that fails on the way out has still drawn


# ---- pictures of a scene


class _Renderer:
    """An off-screen buffer for one model and size.

    `mujoco.Renderer` chooses its backend when `mujoco` is first imported, which is too early here. And its defaults,
    shadows of 4096 x 4096 and full antialiasing, make software rendering ten times slower.
    """

    def __init__(self, model: mujoco.MjModel, width: int, height: int) -> None:
        self.model, self.width, self.height = model, width, height
        self._gl = _gl_context(width, height)
        _close_at_exit()
        self._gl.make_current()
        # The buffer takes its size and quality from the model, which is the caller's: lend them and put them back.
        size, quality = model.vis.global_, model.vis.quality
        kept = size.offwidth, size.offheight, quality.shadowsize, quality.offsamples
        size.offwidth, size.offheight, quality.shadowsize, quality.offsamples = width, height, 0, 4
        try:
            self._buffer = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        finally:
            size.offwidth, size.offheight, quality.shadowsize, quality.offsamples = kept
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._buffer)
        self._scene = mujoco.MjvScene(model, maxgeom=10_000)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._option = mujoco.MjvOption()

    def draw(self, data: mujoco.MjData, camera: mujoco.MjvCamera) -> np.ndarray:
        self._gl.make_current()
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(self.model, data, self._option, None, camera, everything, self._scene)
        area = mujoco.MjrRect(0, 0, self.width, self.height)
        mujoco.mjr_render(area, self._scene, self._buffer)
        pixels = np.empty((self.height, self.width, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, area, self._buffer)
        return np.ascontiguousarray(pixels[::-1])  # OpenGL counts rows from the bottom

    def close(self) -> None:
        self._gl.make_current()
        self._buffer.free()
        self._gl.free()


class _Kept(threading.local):
    """The renderers of one thread, least recently used first: an OpenGL context belongs to the thread that made it."""

    def __init__(self) -> None:
        self.renderers: OrderedDict[tuple[int, int, int], _Renderer] = OrderedDict()

    def get(self, model: mujoco.MjModel, width: int, height: int) -> _Renderer:
        key = (id(model), width, height)  # the renderer keeps its model alive, so the id stays its own
        if key not in self.renderers:
            while len(self.renderers) >= _KEPT:
                self.renderers.popitem(last=False)[1].close()
            self.renderers[key] = _Renderer(model, width, height)
        self.renderers.move_to_end(key)
        return self.renderers[key]

    def close(self) -> None:
        while self.renderers:
            self.renderers.popitem()[1].close()


_kept = _Kept()

Observer = Callable[[mujoco.MjModel, mujoco.MjData], None]
_observers: list[Observer] = []


@contextmanager
def watched_by(observer: Observer) -> Iterator[None]:
    """Within this context `frame` draws nothing: it shows the scene to `observer`, and returns a black picture.

    So what would be filmed can be recorded in another form, even on a machine that cannot draw.
    """
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.pop()


def frame(
    model: mujoco.MjModel, data: mujoco.MjData, camera: str | mujoco.MjvCamera, width: int, height: int
) -> np.ndarray:
    """A picture of the scene as it is, uint8 [height, width, 3]; some 10 to 40 ms for 480 x 480 without a GPU.

    Args:
        camera: the name of a camera of the model, or a free camera.

    Raises:
        QuickstudyError: nothing here can draw, or the model has no such camera.
    """
    if _observers:
        _observers[-1](model, data)
        return np.zeros((height, width, 3), np.uint8)
    view = _view(model, camera)
    if not available():
        raise QuickstudyError(why_not())
    return _kept.get(model, width, height).draw(data, view)


def _view(model: mujoco.MjModel, camera: str | mujoco.MjvCamera) -> mujoco.MjvCamera:
    if not isinstance(camera, str):
        return camera
    view = mujoco.MjvCamera()
    view.type = mujoco.mjtCamera.mjCAMERA_FIXED
    view.fixedcamid = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, camera)
    if view.fixedcamid < 0:
        raise unknown("camera", camera, [model.camera(index).name for index in range(model.ncam)])
    return view


def _gl_context(width: int, height: int) -> Any:
    backend = _backend()
    if importlib.util.find_spec("triton") is not None:
        # Mesa's software drivers and Triton each carry an LLVM. Triton loaded after Mesa ends the process, and torch
        # loads it when it first needs it; loaded before, both work.
        importlib.import_module("triton")
    module = importlib.import_module(f"mujoco.{'glfw' if backend in ('glx', 'wgl') else backend}")
    return module.GLContext(width, height)


@functools.cache
def _close_at_exit() -> None:
    """Called after the first context, whose driver registered its own clean-up: what is registered last runs first."""
    atexit.register(_kept.close)


# ---- files


def write_video(path: Path, frames: Iterable[np.ndarray], fps: int) -> None:
    """Writes an H.264 video that every browser plays and that starts before it is loaded in full.

    Args:
        frames: uint8 [height, width, 3] each, all of one size; an odd height or width loses its last row or column.

    Raises:
        QuickstudyError: no frame, a frame of another form, or the disk refuses.
    """
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise QuickstudyError(f"A video needs at least one frame; got none for '{path}'.")
    shape = _picture(first).shape
    height, width = shape[0] - shape[0] % 2, shape[1] - shape[1] % 2  # yuv420p halves both
    with partial(Path(path)) as temporary, av.open(str(temporary), "w", options={"movflags": "+faststart"}) as file:
        stream = file.add_stream("libx264", rate=Fraction(fps), options={"crf": "23", "preset": "fast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in chain([first], frames):
            if _picture(picture).shape != shape:
                raise QuickstudyError(f"A video's frames have one size; got {picture.shape} after {shape}.")
            pixels = np.ascontiguousarray(picture[:height, :width])
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())


def contact_sheet(frames: Sequence[np.ndarray], captions: Sequence[str], columns: int) -> np.ndarray:
    """Pictures in rows, each with its caption below, on white; uint8 [height, width, 3].

    Args:
        frames: uint8 [height, width, 3], all of one size.
        captions: one for each; what does not fit into a line is wrapped, at most two lines.
        columns: pictures in a row.

    Raises:
        QuickstudyError: no picture, pictures of different sizes, or another number of captions.
    """
    shapes = {_picture(picture).shape for picture in frames}
    if len(shapes) != 1 or len(captions) != len(frames) or columns < 1:
        raise QuickstudyError(
            "A contact sheet needs pictures of one size, a caption for each and at least one column; got "
            f"{len(frames)} pictures of {len(shapes)} sizes, {len(captions)} captions and {columns} columns."
        )
    height, width, _ = shapes.pop()
    gap, size = max(4, width // 24), max(11, width // 16)
    font = ImageFont.load_default(size)
    letters = int(width / font.getlength("o"))
    lines = [textwrap.wrap(caption, letters, max_lines=2, placeholder=" …") for caption in captions]
    text = max(len(caption) for caption in lines) * (size + 3) + gap // 2
    columns = min(columns, len(frames))
    rows = -(-len(frames) // columns)
    sheet = Image.new("RGB", (gap + columns * (width + gap), gap + rows * (height + text + gap)), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (picture, caption) in enumerate(zip(frames, lines, strict=True)):
        left, top = gap + place % columns * (width + gap), gap + place // columns * (height + text + gap)
        sheet.paste(Image.fromarray(picture), (left, top))
        for number, line in enumerate(caption):
            draw.text((left, top + height + gap // 2 + number * (size + 3)), line, (40, 40, 40), font)
    return np.asarray(sheet)


def write_png(path: Path, image: np.ndarray) -> None:
    """Writes a picture, uint8 [height, width, 3].

    Raises:
        QuickstudyError: it is no picture, or the disk refuses.
    """
    with partial(Path(path)) as temporary:
        Image.fromarray(_picture(image)).save(temporary, "png")


def _picture(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or min(image.shape[:2]) < 2:
        raise QuickstudyError(f"A picture is uint8 [height, width, 3]; got {image.dtype} {list(image.shape)}.")
    return image
