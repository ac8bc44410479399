"""The real page in a real browser: a robot is taught by the mouse, and can then do what it could not do before."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import mouse
from benchmarks.mouse import Hand, wait

from quickstudy.families.grasping.scene import rotate
from quickstudy.studio import learning
from quickstudy.studio.page import Tab
from quickstudy.studio.server import Studio

pytest.importorskip("playwright.sync_api", reason="playwright is part of the extra 'dev'")
pytestmark = pytest.mark.skipif(mouse.chromium() is None, reason=mouse.HOW_TO_GET_IT)
MATCHING = next(one for one in learning.choices() if (one.family, one.method) == ("grasping", "matching"))


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    others = [one for one in learning.choices() if one != MATCHING]
    made = Studio([MATCHING, *others], tmp_path_factory.mktemp("studio"), port=0, seed=3)
    yield made
    made.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with mouse.browser() as started:
        yield started


def button(page: Any, name: str) -> Any:
    return page.get_by_role("button", name=name, exact=False)


def demonstrated(page: Any, tab: Tab) -> None:
    """One demonstration of a grasp: over the object, turned, down, closed, up."""
    session = tab.session
    assert session is not None
    button(page, "Demonstrate (H)").click()
    wait(lambda: session.mode == "shown by person")
    page.wait_for_timeout(500)
    env, p = session.arena.env, session.arena.task.parameters
    yaw = float(env.tag_yaw()[0])
    at = env.read("tag")[0, :2] + rotate(np.array([p["grasp_x"], p["grasp_y"]]), np.array(yaw))
    hand = Hand(page, tab, np.random.default_rng(0))
    hand.turn_to(yaw + p["grasp_yaw"], 0.3)
    hand.across(at, 0.3)
    hand.up_to(p["grasp_height"], 0.3)
    wait(lambda: session.mode != "shown by person" or abs(env.target[0, 2] - session.handle.place[2]) < 0.002)
    page.keyboard.press("g")
    wait(lambda: session.handle.grip > 0)
    time.sleep(0.8)
    hand.up_to(0.19, 0.3)
    wait(lambda: session.mode == "rest")


def test_a_robot_is_taught_by_the_mouse_tried_saved_and_loaded_again(
    studio: Studio, browser: Any, tmp_path: Path
) -> None:
    page = browser.new_page(viewport={"width": 800, "height": 450})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    tab = mouse.opened(page, studio)
    session = tab.session
    assert session is not None
    button(page, "Try (T)").click()
    wait(lambda: session.score.tries >= 1)
    page.keyboard.press("p")
    wait(lambda: session.mode == "rest")
    page.keyboard.press("m")
    wait(lambda: session.score.tries >= 20)
    before = session.score.successes
    demonstrated(page, tab)
    assert session.shown[0].success, session.shown[0].faults
    page.get_by_text("by you, ").wait_for(timeout=20e3)
    button(page, "Learn").click()
    wait(lambda: session.moving_ms > 0)
    page.keyboard.press("p")
    wait(lambda: session.mode == "rest")
    page.keyboard.press("m")
    wait(lambda: session.score.tries >= 20)
    assert session.score.successes >= before + 10
    page.get_by_text(f"{session.score.successes} of {session.score.tries}").wait_for()
    page.get_by_role("tab", name="Files").click()
    button(page, "Save demonstrations").click()
    wait(lambda: (tab.folder / "my-skill/meta/info.json").exists())
    button(page, "Save skill").click()
    wait(lambda: (tab.folder / "my-skill.safetensors").exists())
    assert json.loads((tab.folder / "my-skill/meta/info.json").read_text())["total_episodes"] == 1
    tab = reloaded(page, studio)
    assert tab.session is not None
    assert tab.session.shown == []
    page.get_by_role("tab", name="Files").click()
    page.get_by_role("button", name="Load", exact=True).click()
    session = tab.session
    wait(lambda: bool(session.shown) or session.skill is not None)
    assert all(url.startswith((studio.address, "data:", "blob:")) for url in asked)  # nothing of other servers
    page.close()


def reloaded(page: Any, studio: Studio) -> Tab:
    old = set(studio.tabs)
    page.reload()
    wait(lambda: bool(set(studio.tabs) - old) and not (old & set(studio.tabs)))
    (tab,) = studio.tabs.values()
    wait(lambda: tab.pictures > 2, 180)
    return tab


def test_the_page_speaks_chinese_and_is_dark_when_asked(studio: Studio, browser: Any) -> None:
    page = browser.new_page(viewport={"width": 800, "height": 450})
    tab = mouse.opened(page, studio)
    page.get_by_role("tab", name="Page").click()
    tab.dark, tab.language = True, "zh"
    tab.rebuild()
    page.get_by_role("button", name="我来示范").wait_for()
    assert page.evaluate("document.documentElement.dataset.mantineColorScheme") == "dark"
    assert page.get_by_role("button", name="Demonstrate").count() == 0
    page.close()


def test_an_upload_that_is_too_large_or_of_another_kind_is_refused(
    studio: Studio, browser: Any, tmp_path: Path
) -> None:
    page = browser.new_page(viewport={"width": 800, "height": 450})
    tab = mouse.opened(page, studio)
    page.get_by_role("tab", name="Files").click()
    wrong = tmp_path / "wrong.pkl"
    wrong.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with page.expect_file_chooser() as chooser:
        button(page, "Upload").click()
    chooser.value.set_files(wrong)
    wait(lambda: "another kind" in tab.failure)
    assert not (tab.folder / "wrong.pkl").exists()
    page.close()
