"""The part of the panel where tasks are made: by sliders, by drawing a room, from a mesh or a map."""

from typing import TYPE_CHECKING, Any

import numpy as np

from quickstudy.errors import QuickstudyError
from quickstudy.families.grasping import meshes
from quickstudy.families.grasping.objects import graspable
from quickstudy.families.navigation import maps
from quickstudy.families.navigation.layouts import CELLS, HALF
from quickstudy.families.navigation.tasks import draw, draw_on
from quickstudy.studio.arenas import ARENAS
from quickstudy.studio.keeping import take_upload
from quickstudy.studio.session import Session

if TYPE_CHECKING:
    from quickstudy.studio.page import Tab

BLOCKS = 10
"""Blocks along each side of a room that is drawn: each is one metre wide."""
_MAPS = (".png", ".pgm", ".map")
_LENGTHS = ("width", "height", "length")
"""Sliders that show centimetres."""


def room_task(blocks: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    """The parameters of a task in a room of blocks [row, column], True where one stands; row 0 is the top.

    Raises:
        QuickstudyError: no two places in it are far enough apart.
    """
    each = CELLS // BLOCKS
    grid = np.kron(blocks, np.ones((each, each))).astype(bool)
    grid[[0, -1]] = grid[:, [0, -1]] = True
    found = draw(grid, rng)
    if found is None:
        raise QuickstudyError("In this room no two places are 4 m apart for the robot; take some blocks away.")
    return {"style": "drawn", **found}


def block_at(place: np.ndarray) -> tuple[int, int] | None:
    """Row and column of the block at a place [2] on the floor, metres; None beyond the room."""
    row, column = int((HALF - place[1]) // (2 * HALF / BLOCKS)), int((place[0] + HALF) // (2 * HALF / BLOCKS))
    return (row, column) if 0 <= row < BLOCKS and 0 <= column < BLOCKS else None


class Make:
    """Sliders and buttons; they are those of the robot that is chosen."""

    def __init__(self, tab: "Tab", session: Session, place: Any) -> None:
        self._tab, self._session, self._place = tab, session, place
        self._blocks = np.zeros((BLOCKS, BLOCKS), bool)
        self._folder: Any = None
        self._family = ""

    def refresh(self) -> None:
        if self._session.choice.family == self._family:
            return
        self._family = self._session.choice.family
        self._stop_drawing()
        gui, tab = self._tab.gui, self._tab
        if self._folder is not None:
            self._folder.remove()
        with self._place:
            self._folder = gui.add_folder(tab.name(self._family))
        with self._folder:
            self._build(gui)

    def draw(self) -> None:
        """Nothing here moves by itself."""

    def _build(self, gui: Any) -> None:
        tab, say = self._tab, self._tab.say
        arena = ARENAS[self._family]
        if not arena.kinds():
            gui.add_markdown(say("no_making"))
            return
        self._kinds = {tab.name(kind): kind for kind in arena.kinds()}
        self._kind = gui.add_dropdown(say("style" if self._family == "navigation" else "shape"), list(self._kinds))
        self._sliders = {}
        for key, (low, high, step, first) in arena.sliders().items():
            by = 100.0 if key in _LENGTHS else 1.0
            self._sliders[key] = (
                gui.add_slider(say(key), min=low * by, max=high * by, step=step * by, initial_value=first * by),
                by,
            )
        tab.on(gui.add_button(say("make_it")), self._make)
        if self._family in ("grasping", "grasping-tries"):
            self._unit = gui.add_dropdown(say("unit"), tuple(meshes.UNITS), initial_value="m")
            upload = gui.add_upload_button(say("import_mesh"), mime_type=",".join(meshes.SUFFIXES))
            tab.on_upload(upload, self._import_mesh)
        if self._family == "navigation":
            self._drawing = gui.add_button(say("draw"))
            tab.on(self._drawing, self._start_drawing)
            self._help = gui.add_markdown(say("draw_said"), visible=False)
            self._take, self._clear = (
                gui.add_button(say("draw_take"), visible=False),
                gui.add_button(say("draw_clear"), visible=False),
            )
            tab.on(self._take, self._take_room)
            tab.on(self._clear, self._clear_room)
            self._resolution = gui.add_number(say("resolution"), initial_value=0.05, min=0.01, max=1.0, step=0.01)
            upload = gui.add_upload_button(say("import_map"), mime_type=",".join(_MAPS))
            tab.on_upload(upload, self._import_map)

    def _make(self) -> None:
        values = {key: float(slider.value) / by for key, (slider, by) in self._sliders.items()}
        self._session.make_task(self._kinds[self._kind.value], values)

    # ---- a room of blocks

    def _start_drawing(self) -> None:
        self._session.rest()
        self._tab.is_drawing = True
        for part in (self._help, self._take, self._clear):
            part.visible = True
        self._tab.stage.draw_room(self._blocks)
        self._tab.on_floor(self._toggle)

    def _stop_drawing(self) -> None:
        if self._tab.is_drawing:
            self._tab.is_drawing = False
            self._tab.on_floor(None)
            self._tab.stage.draw_room(None)
            for part in (self._help, self._take, self._clear):
                part.visible = False

    def _toggle(self, place: np.ndarray) -> None:
        found = block_at(place)
        if found is not None:
            self._blocks[found] ^= True
            self._tab.stage.draw_room(self._blocks)

    def _clear_room(self) -> None:
        self._blocks[:] = False
        self._tab.stage.draw_room(self._blocks)

    def _take_room(self) -> None:
        parameters = room_task(self._blocks, np.random.default_rng())
        self._stop_drawing()
        self._session.take_task(parameters)

    # ---- files

    def _import_mesh(self, name: str, content: bytes) -> None:
        path = take_upload(self._tab.folder / "meshes", name, content, meshes.SUFFIXES)
        self._tab.note = self._tab.say("importing", name=path.name)
        arena = self._session.arena
        if arena.name != "grasping":
            raise QuickstudyError("A mesh is an object to grasp; choose the arm first.")
        self._session.take_task(graspable(path, self._unit.value, arena.family.arm))  # type: ignore[attr-defined]
        self._tab.note = self._tab.say("imported", name=path.name)

    def _import_map(self, name: str, content: bytes) -> None:
        path = take_upload(self._tab.folder / "maps", name, content, _MAPS)
        found = maps.read(path, float(self._resolution.value))
        self._session.take_task(draw_on(found[0], np.random.default_rng()))
        self._tab.note = self._tab.say("imported", name=path.name)
