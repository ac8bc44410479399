"""What a session looks like: two robots, the handle that a person drags, and what the learner attends to."""

from collections.abc import Callable
from typing import Any

import numpy as np

from quickstudy.families.navigation.layouts import HALF
from quickstudy.simulation.world_view import WorldView
from quickstudy.studio.arena import BESIDE, LEARNER, Arena, Handle
from quickstudy.studio.motion import Frame

_QUIET, _LOUD = np.array([150, 160, 175]), np.array([230, 60, 30])
"""Colours of a demonstrated step that nobody attends to, and of one that is attended to most."""

_TRIANGLES = 2500
"""Of a mesh: a scene that moves is drawn again and again, by some browsers without a GPU."""


class Stage:
    """The scene of one browser tab.

    Args:
        scene: of a viser client.
        moved: called with the handle whenever a person drags it.
    """

    def __init__(self, scene: Any, moved: Callable[[np.ndarray, float], None]) -> None:
        self._scene, self._moved = scene, moved
        self._views: list[WorldView] = []
        self._arena: Arena | None = None
        self._handle: Any = None
        self._plumb: Any = None
        self._steps: Any = None
        self._labels: list[Any] = []
        self._names = ("", "")
        self._beside: Any = None
        self._mark: Any = None
        self._learner: Any = None
        self._room: list[Any] = []
        self._second = False

    @property
    def arena(self) -> Arena | None:
        """What is drawn."""
        return self._arena

    def build(self, arena: Arena) -> None:
        """Draws a task; of the same family, only what looks otherwise than before."""
        if self._arena is None or self._arena.name != arena.name:
            self._scene.reset()
            self._learner = self._scene.add_frame("/learner", show_axes=False)
            self._beside = self._scene.add_frame("/beside", show_axes=False, position=arena.apart)
            self._views = [
                WorldView(self._scene, "/learner", triangles=_TRIANGLES),
                WorldView(self._scene, "/beside/robot", arena.shared, _TRIANGLES),
            ]
            self._handle = self._plumb = self._steps = None
            self._labels, self._names, self._mark = [], ("", ""), None
            # Shadows and the light of an environment take a browser without a GPU three quarters of its time.
            self._scene.configure_environment_map(None)
            self._scene.configure_default_lights(enabled=False)
            self._scene.add_light_ambient("/ambient", intensity=2.2)
            self._scene.add_light_directional("/sun", intensity=2.2, position=(0.6, 1.5, 2.0))
        self._arena = arena
        self._views[LEARNER].build(arena.model)
        self._second = False  # it is drawn when it is first seen
        if self._mark is not None:
            self._mark.remove()
            self._mark = None
        if arena.mark is not None:
            self._mark = self._scene.add_icosphere("/learner/mark", 0.025, color=(40, 160, 80), position=arena.mark)
        self.attend(None)

    def label(self, names: tuple[str, str]) -> None:
        """Writes what the two robots are called above them."""
        if self._arena is None or names == self._names:
            return
        self._names = names
        for label in self._labels:
            label.remove()
        self._labels = []
        if self._arena.label_at is not None:
            for text, parent in zip(names, ("/learner", "/beside"), strict=True):
                self._labels.append(self._scene.add_label(f"{parent}/label", text, position=self._arena.label_at))

    def draw(self, frame: Frame) -> None:
        """Moves both robots to where they are."""
        self._beside.visible = frame.beside and not self._room
        self._learner.visible = not self._room
        for label in self._labels[1:]:
            label.visible = frame.beside
        if frame.beside and not self._second:
            self._views[BESIDE].build(frame.arena.model)
            self._second = True
        for robot in (LEARNER, BESIDE):
            if robot == LEARNER or frame.beside:
                self._views[robot].move(frame.places[robot], frame.turns[robot])

    def show_handle(self, handle: Handle | None) -> None:
        """The handle where it is given; None takes it away."""
        if handle is None:
            for part in (self._handle, self._plumb):
                if part is not None:
                    part.remove()
            self._handle = self._plumb = None
            return
        assert self._arena is not None
        arena = self._arena
        if self._handle is None:
            self._handle = self._scene.add_transform_controls(
                "/handle", scale=arena.handle_size, line_width=4.0, depth_test=False,
                disable_rotations=not arena.turns, rotation_limits=((0.0, 0.0), (0.0, 0.0), (-3.0, 3.0)),
                active_axes=(True, True, arena.turns), position=handle.place, wxyz=_turn(handle.yaw),
            )  # fmt: skip

            @self._handle.on_update
            async def _(event: Any) -> None:
                place = np.array(event.target.position)
                self._moved(place, _yaw(np.array(event.target.wxyz)))
                if event.phase == "end" and self._handle is event.target:  # one that left the robot's reach comes back
                    low, high = np.array(arena.limits()).T
                    event.target.position = np.clip(place, low, high)

        else:
            self._handle.position, self._handle.wxyz = handle.place, _turn(handle.yaw)

    def plumb(self, place: np.ndarray) -> None:
        """A line from a place of the hand down to the table, by which its depth can be seen."""
        points = np.array([[place, [place[0], place[1], 0.001]]], np.float32)
        if self._plumb is None:
            self._plumb = self._scene.add_line_segments(
                "/plumb", points, colors=(40, 90, 200), thickness=2.0, thickness_units="screen"
            )
        else:
            self._plumb.points = points

    def draw_room(self, blocks: np.ndarray | None) -> None:
        """A room [row, column] that is being drawn, in place of the robots; None takes it away."""
        for part in self._room:
            part.remove()
        self._room = []
        if blocks is None:
            return
        size = 2 * HALF / len(blocks)
        floor = self._scene.add_grid(
            "/room", 2 * HALF, 2 * HALF, plane="xy", cell_size=size, section_size=size, infinite_grid=False
        )
        self._room = [floor]
        for row, column in np.argwhere(blocks).tolist():
            at = (-HALF + (column + 0.5) * size, HALF - (row + 0.5) * size, 0.25)
            self._room.append(
                self._scene.add_box(
                    f"/room-{row}-{column}", color=(90, 98, 112), dimensions=(size, size, 0.5), position=at
                )
            )

    def attend(self, found: tuple[np.ndarray, np.ndarray] | None) -> None:
        """The demonstrated steps as points, the redder the more the learner attends to them; None takes them away."""
        if found is None:
            if self._steps is not None:
                self._steps.remove()
            self._steps = None
            return
        places, weights = found
        share = np.sqrt(weights / max(float(weights.max()), 1e-9))[:, None]
        colours = (_QUIET * (1 - share) + _LOUD * share).astype(np.uint8)
        size = 0.007 if self._arena is not None and self._arena.name == "grasping" else 0.12
        if self._steps is None or len(self._steps.points) != len(places):
            self._steps = self._scene.add_point_cloud(
                "/learner/attention", places.astype(np.float32), colours, point_size=size, point_shape="circle"
            )
        else:
            self._steps.points, self._steps.colors = places.astype(np.float32), colours


def _turn(yaw: float) -> np.ndarray:
    return np.array([np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])


def _yaw(wxyz: np.ndarray) -> float:
    w, x, y, z = wxyz
    return float(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))
