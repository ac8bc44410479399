"""A person before the studio's page: real mouse events in a real browser, for its tests and its benchmark.

What a person sees is known here from the page's own camera: where on the screen a place of the scene is. The handle is
taken where its arrows, squares and arcs are, and dragged.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from quickstudy.studio.page import Tab
from quickstudy.studio.server import Studio

CHROMIUM = "QUICKSTUDY_CHROMIUM"
"""The environment variable that names the browser; otherwise it is looked for by its usual names."""
HOW_TO_GET_IT = f"no Chromium: 'apt-get install chromium' brings it, and {CHROMIUM}=PATH names another one"
_DRAWN_BY_CPU = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
_PICTURE_MS = """() => new Promise(done => { let n = 0, begun = performance.now();
  const next = () => { if (++n < 4) requestAnimationFrame(next); else done((performance.now() - begun) / 3); };
  requestAnimationFrame(next); })"""
_SQUARE, _ARROW, _ARC = 0.26, 0.85, 0.46
"""Where the handle is taken, in lengths of its arrows: its squares (along both axes), its arrows, its arcs (both)."""


def chromium() -> str | None:
    """The browser, if there is one."""
    names = (os.environ.get(CHROMIUM, ""), "chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if name and (found := shutil.which(name))), None)


@contextmanager
def browser() -> Iterator[Any]:
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=list(_DRAWN_BY_CPU))
        try:
            yield started
        finally:
            started.close()


def opened(page: Any, studio: Studio, seconds: float = 60.0) -> Tab:
    """Opens the studio on a page and waits until it can be used."""
    before = set(studio.tabs)
    page.goto(studio.address)
    page.get_by_role("button", name="(H)").wait_for(timeout=1e3 * seconds)
    (number,) = set(studio.tabs) - before
    tab = studio.tabs[number]
    wait(lambda: tab.pictures > 2, seconds)
    for close in page.locator(".mantine-Notification-closeButton").all():
        close.click()  # that there is no GPU here
    wait(lambda: page.evaluate(_PICTURE_MS) < 300, seconds)  # until all of the robot is there
    return tab


def wait(done: Any, seconds: float = 30.0) -> None:
    """Waits until something is so.

    Raises:
        TimeoutError: it is not.
    """
    until = time.monotonic() + seconds
    while not done():
        if time.monotonic() > until:
            raise TimeoutError(f"Nothing came of it in {seconds:g} s.")
        time.sleep(0.02)


class Hand:
    """A hand on the mouse.

    Args:
        rng: draws how it moves.
        jitter: standard deviation of the mouse about its way, pixels.
    """

    def __init__(self, page: Any, tab: Tab, rng: np.random.Generator, jitter: float = 0.0) -> None:
        assert tab.session is not None
        self._page, self._mouse, self._tab, self._session = page, page.mouse, tab, tab.session
        self._rng, self._jitter = rng, jitter

    def pixel(self, place: np.ndarray) -> np.ndarray:
        """Where on the page a place [3] of the scene is, [2]."""
        camera = self._tab.client.camera
        w, x, y, z = camera.wxyz
        turn = np.array([
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ])  # fmt: skip
        right, down, ahead = (place - camera.position) @ turn
        size = np.array([camera.image_width, camera.image_height])
        return size / 2 + size[1] / 2 / np.tan(camera.fov / 2) * np.array([right, down]) / ahead

    def click(self, place: np.ndarray) -> None:
        """Clicks on a place [3] of the scene."""
        self._mouse.click(*self.pixel(place))

    def drag(self, grab: np.ndarray, to: np.ndarray, seconds: float) -> None:
        """Takes the handle at a place [3] and drags that to another one."""
        here, there = self.pixel(grab), self.pixel(to)
        self._mouse.move(*here)
        self._see()
        self._mouse.down()
        self._see()  # the page takes the handle, and leaves the camera alone, with its next picture
        steps = max(4, int(seconds / 0.06))
        for step in range(1, steps + 1):
            at = here + (there - here) * (0.5 - 0.5 * np.cos(np.pi * step / steps))
            if step < steps:
                at = at + self._jitter * self._rng.normal(size=2)
            self._mouse.move(*at)
            time.sleep(0.06)
        self._see()
        self._mouse.up()
        self._see()

    def _see(self) -> None:
        """Waits for pictures, as a hand waits for the eye."""
        self._page.evaluate(_PICTURE_MS)

    def across(self, place: np.ndarray, seconds: float) -> None:
        """Drags the handle to a place [2] at the height where it is."""
        local = self._turned(np.array([_SQUARE, _SQUARE, 0.0]))
        self._towards(np.array([*place, self._handle[2]]), local, (0, 1), seconds)

    def up_to(self, height: float, seconds: float) -> None:
        """Drags the handle up or down."""
        self._towards(np.array([*self._handle[:2], height]), np.array([0.0, 0.0, _ARROW]), (2,), seconds)

    def turn_to(self, yaw: float, seconds: float) -> None:
        """Turns the handle about the vertical."""
        for _ in range(3):
            away = yaw - self._session.handle.yaw
            if abs(away) < 0.03:
                return
            local = self._turned(np.array([_ARC, _ARC, 0.0])) * self._tab.session.arena.handle_size
            c, s = np.cos(away), np.sin(away)
            turned = np.array([c * local[0] - s * local[1], s * local[0] + c * local[1], 0.0])
            self.drag(self._handle + local, self._handle + turned, seconds)
            seconds = 0.4

    def pause(self, longest: float) -> None:
        """Does nothing for a while."""
        time.sleep(float(self._rng.uniform(0.0, longest)))

    @property
    def _handle(self) -> np.ndarray:
        return self._session.handle.place.copy()

    def _turned(self, local: np.ndarray) -> np.ndarray:
        c, s = np.cos(self._session.handle.yaw), np.sin(self._session.handle.yaw)
        return np.array([c * local[0] - s * local[1], s * local[0] + c * local[1], local[2]])

    def _towards(self, place: np.ndarray, local: np.ndarray, axes: tuple[int, ...], seconds: float) -> None:
        """Drags until it is there within 3 mm, as somebody who looks."""
        grab = local * self._session.arena.handle_size
        for _ in range(4):
            handle = self._handle
            if np.linalg.norm((place - handle)[list(axes)]) < 0.003:
                return
            self.drag(handle + grab, place + grab, seconds)
            seconds = 0.4
