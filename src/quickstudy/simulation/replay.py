"""A 3D replay of an episode: recorded once, to turn and to play in any browser, without a server and without a GPU."""

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import mujoco
import numpy as np
import viser

from quickstudy.simulation import rendering
from quickstudy.simulation.world_view import WorldView, camera


def record(film: Callable[[], object], fps: int = 20) -> bytes | None:
    """What `film` draws of a MuJoCo world, as a scene that viser's viewer plays.

    Args:
        film: called once; whatever it draws by `quickstudy.simulation.rendering.frame` is recorded.

    Returns:
        None where it draws nothing of MuJoCo.
    """
    scene = _Scene(fps)
    try:
        with rendering.watched_by(scene.add):
            film()
        return scene.recorded()
    finally:
        scene.close()


def viewer() -> str:
    """The page of viser's viewer in one file; a scene is put before the end of its head."""
    return (Path(viser.__file__).parent / "client/build/index.html").read_text(encoding="utf-8")


class _Scene:
    """A MuJoCo world in viser, moved from picture to picture."""

    def __init__(self, fps: int) -> None:
        with redirect_stdout(io.StringIO()):  # it says where it listens, which is of no use here
            self._server = viser.ViserServer(host="127.0.0.1", port=0, verbose=False)
        self._serialiser = self._server.get_scene_serializer()
        self._pause = 1.0 / fps
        self._view: WorldView | None = None

    def add(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """The world as it is becomes the next picture."""
        if self._view is None:
            eye, centre = camera(model, data)
            first = self._server.initial_camera
            first.position, first.look_at, first.up = np.array(eye), np.array(centre), (0.0, 0.0, 1.0)
            self._view = WorldView(self._server.scene)
            self._view.build(model)
        self._view.move(data.xpos, data.xquat)
        self._serialiser.insert_sleep(self._pause)

    def recorded(self) -> bytes | None:
        return self._serialiser.serialize() if self._view is not None else None

    def close(self) -> None:
        with redirect_stdout(io.StringIO()):
            self._server.stop()
