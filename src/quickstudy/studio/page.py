"""One browser tab: the panel beside the scene, and the loop that draws both.

Only that loop changes what is shown; what a click asks for is done by viser's threads, one click after the other.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quickstudy.errors import QuickstudyError, one_line
from quickstudy.studio.arena import Arena
from quickstudy.studio.keeping import Files
from quickstudy.studio.learning import Choice
from quickstudy.studio.making import Make
from quickstudy.studio.scene import Stage
from quickstudy.studio.session import Session
from quickstudy.studio.teaching import Teach
from quickstudy.studio.why import Why
from quickstudy.studio.words import LANGUAGES, Language, language_of, name, say

_PICTURE = 1 / 30
"""Seconds from one picture to the next."""
_log = logging.getLogger(__name__)


class Tab:
    """What one visitor sees and does.

    Args:
        client: of viser.
        clients: those that are connected now, by number.
        choices: the learners that there are.
        folder: where files are kept.

    Attributes:
        session: None until it is there, and where it could not be made.
        pictures: drawn so far.
        note: what was last done, in a sentence; it goes with the next click.
        is_drawing: whether clicks on the floor draw a room.
    """

    def __init__(
        self,
        client: Any,
        clients: Callable[[], Mapping[int, Any]],
        choices: Sequence[Choice],
        folder: Path,
        language: Language,
        dark: bool,
        seed: int | None,
    ) -> None:
        self._clients = clients
        self.client, self.choices, self.folder, self.language, self.dark = client, choices, folder, language, dark
        self.session: Session | None = None
        self.note, self.failure, self.pictures = "", "", 0
        self._seed = seed
        self._acting = threading.Lock()
        self._stop = threading.Event()
        self._stale = True  # the panel must be built anew
        self._shown: tuple[Any, ...] = ()
        self._parts: list[Any] = []
        self._view = ("", False)
        self._stage = Stage(client.scene, self._moved)
        self._clicked: Callable[[np.ndarray], None] | None = None
        self.is_drawing = False
        self._thread = threading.Thread(target=self._run, name="studio-page", daemon=True)
        self._thread.start()

    def say(self, key: str, **values: Any) -> str:
        return say(self.language, key, **values)

    def name(self, word: str) -> str:
        return name(self.language, word)

    @property
    def gui(self) -> Any:
        return self.client.gui

    @property
    def stage(self) -> Stage:
        return self._stage

    def on(self, button: Any, action: Callable[[], None]) -> None:
        """Does something when a button is clicked."""
        button.on_click(lambda _: self.act(action))

    def on_upload(self, button: Any, action: Callable[[str, bytes], None]) -> None:
        """Does something with the name and the content of each file that a button takes."""

        @button.on_upload
        def _(event: Any) -> None:
            given = event.target.value
            self.act(lambda: action(given.name, given.content))

    def act(self, action: Callable[[], None]) -> None:
        """What a click asks for; a mistake in it is said on the page, and ends nothing."""
        with self._acting:
            self.note = self.failure = ""
            if self.session is not None:
                self.session.failure = ""
            try:
                action()
            except QuickstudyError as error:
                self.failure = str(error)
            except Exception as error:
                _log.exception("A click of the studio failed.")
                self.failure = f"{type(error).__name__}: {one_line(error)}"

    def on_floor(self, clicked: Callable[[np.ndarray], None] | None) -> None:
        """Who is told where on the floor [2] a person clicks; None asks for no clicks any more."""
        if self._clicked is None and clicked is not None:

            @self.client.scene.on_click()
            def _(event: Any) -> None:
                origin, along = np.array(event.ray_origin), np.array(event.ray_direction)
                told = self._clicked
                if told is not None and along[2] < -1e-6:
                    told((origin - along * origin[2] / along[2])[:2])

        elif self._clicked is not None and clicked is None:
            self.client.scene.remove_click_callback()
        self._clicked = clicked

    def rebuild(self) -> None:
        """The panel is made anew, as after another language or theme was chosen."""
        self._stale = True

    def close(self) -> None:
        """Ends the loop and the physics."""
        self._stop.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(5.0)
        if self.session is not None:
            self.session.close()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    # ---- the loop

    def _run(self) -> None:
        while not self._stop.is_set():
            started = time.perf_counter()
            try:
                if self._stale:
                    self._build()
                self._draw()
            except Exception as error:  # whatever fails here must not take other tabs with it
                if self._stop.is_set() or not self._is_connected():
                    break
                _log.exception("A page of the studio failed.")
                self.failure = f"{type(error).__name__}: {one_line(error)}"
                self._shown = ()
                self._stop.wait(1.0)
            self._stop.wait(max(0.002, _PICTURE - (time.perf_counter() - started)))

    def _is_connected(self) -> bool:
        return self.client.client_id in self._clients()

    def _begin(self) -> None:
        """Makes the session; it takes seconds in a process that has made none."""
        try:
            self.session = Session(self.choices, self._seed)
        except QuickstudyError as error:
            self.failure = str(error)

    def _restart(self) -> None:
        if self.session is not None:
            self.session.close()
        self.session, self._stale = None, True

    def _build(self) -> None:
        """The panel, from nothing."""
        self._stale, self._shown, self._parts = False, (), []
        self.on_floor(None)
        gui = self.gui
        gui.reset()
        gui.set_panel_label(self.say("title"))
        gui.configure_theme(
            dark_mode=self.dark,
            show_logo=False,
            show_share_button=False,
            control_width="large",
            brand_color=(24, 92, 168),
        )
        gui.main_panel.dock_right()
        self._status = gui.add_markdown(self.say("loading"))
        if self.session is None:
            self._begin()
        if self.session is None:
            self.on(gui.add_button(self.say("again")), self._restart)
            self._status.content = self.say("failure", said=self.failure)
            return
        tabs = gui.add_tab_group()
        for title, part in (("teach", Teach), ("why", Why), ("make", Make), ("keep", Files)):
            with tabs.add_tab(self.say(title)) as place:
                self._parts.append(part(self, self.session, place))
        with tabs.add_tab(self.say("page")):
            self._page()

    def _page(self) -> None:
        gui = self.gui
        language = gui.add_dropdown(
            self.say("language"), list(LANGUAGES.values()), initial_value=LANGUAGES[self.language]
        )
        dark = gui.add_checkbox(self.say("dark"), initial_value=self.dark)
        self.on(gui.add_button(self.say("again")), self._restart)

        @language.on_update
        def _(event: Any) -> None:
            self.language = language_of(next(key for key, said in LANGUAGES.items() if said == event.target.value))
            self._stale = True

        @dark.on_update
        def _(event: Any) -> None:
            self.dark = bool(event.target.value)
            self._stale = True

    def _draw(self) -> None:
        session = self.session
        if session is None:
            return
        frame = session.frame()
        if self._stage.arena is not frame.arena:
            self._stage.build(frame.arena)
            self._shown = ()
        if (frame.arena.name, frame.beside) != self._view:
            self._view = frame.arena.name, frame.beside
            self._look(frame.arena, frame.beside)
        self._stage.draw(frame)
        state = (session.version, session.failure, self.note, self.failure)
        if state != self._shown:
            self._shown = state
            self._status.content = self._headline()
            for part in self._parts:
                part.refresh()
        for part in self._parts:
            part.draw()
        self.pictures += 1

    def _look(self, arena: Arena, beside: bool) -> None:
        camera = self.client.camera
        camera.fov, camera.up_direction = 0.8, (0.0, 0.0, 1.0)
        camera.position = arena.wide_eye if beside else arena.eye
        camera.look_at = arena.wide_centre if beside else arena.centre

    def _headline(self) -> str:
        assert self.session is not None
        failure = self.failure or self.session.failure
        if failure:
            return f"⚠️ {self.say('failure', said=failure)}"
        return self.note or self._parts[0].headline()

    def _moved(self, place: np.ndarray, yaw: float) -> None:
        if self.session is not None:
            self.session.move(place, yaw)
