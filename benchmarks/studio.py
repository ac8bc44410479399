"""What the studio's learners make of demonstrations by mouse, how soon the robot moves, and how fast the page is.

    python -m benchmarks.studio [--demonstrations 10] [--tries 20]

A browser opens the real page. The mouse leads the hand as people do: with detours, pauses, jitter, an aim beside the
best one, in drags of one arrow or square at a time; each demonstration is of another unseen object. What learners make
of it is compared with what they make of the expert's demonstration of the same object, in the same tries. Writes
benchmarks/results/studio.json.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks import mouse
from benchmarks.mouse import Hand, wait
from quickstudy.demonstration import Demonstration
from quickstudy.families.grasping.family import Grasping
from quickstudy.families.grasping.scene import rotate
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.statistics import bootstrap
from quickstudy.results.tables import print_table
from quickstudy.studio import learning
from quickstudy.studio.page import Tab
from quickstudy.studio.server import Studio
from quickstudy.task import Task

BESIDE, BELOW, TURNED = 0.004, 0.003, 0.08
"""Standard deviations of the aim: metres beside, metres of height, radians."""
JITTER, LONGEST_PAUSE = 1.5, 1.0
"""Pixels of the mouse about its way, and seconds of a pause between drags."""
ATTEMPTS = 4
"""After which a person takes another object."""
SIZE = {"width": 1280, "height": 800}
"""Of the page whose pictures are counted, pixels."""
PICTURES = """() => new Promise(done => { let n = 0; const begun = performance.now();
  const next = () => { n++; const passed = performance.now() - begun;
    if (passed > 4000) done(1000 * n / passed); else requestAnimationFrame(next); };
  requestAnimationFrame(next); })"""


@dataclass(frozen=True)
class What:
    """What is measured."""

    demonstrations: int = 10
    """By mouse, each of another object."""
    tries: int = 20
    """Of each learner after each demonstration."""
    output: Path | None = Path("benchmarks/results/studio.json")
    """Where the table goes."""


def show(page: Any, tab: Tab, rng: np.random.Generator) -> None:
    """One demonstration of a grasp, as a person gives it."""
    session = tab.session
    assert session is not None
    session.show()
    page.wait_for_timeout(600)
    env, p = session.arena.env, session.arena.task.parameters
    yaw = float(env.tag_yaw()[0])
    at = env.read("tag")[0, :2] + rotate(np.array([p["grasp_x"], p["grasp_y"]]), np.array(yaw))
    at = at + BESIDE * rng.normal(size=2)
    height, yaw = max(p["grasp_height"] + BELOW * rng.normal(), 0.011), yaw + p["grasp_yaw"] + TURNED * rng.normal()
    hand = Hand(page, tab, rng, JITTER)

    def speed() -> float:
        return float(rng.uniform(0.3, 1.2))

    if rng.uniform() < 0.5:
        hand.across(session.handle.place[:2] + rng.uniform(-0.05, 0.05, 2), speed())
        hand.pause(LONGEST_PAUSE)
    for part in rng.permutation(["across", "turn"]):
        if part == "across":
            hand.across(at, speed())
        else:
            hand.turn_to(float(yaw), speed())
        hand.pause(LONGEST_PAUSE)
    if rng.uniform() < 0.5:
        hand.up_to(height + float(rng.uniform(0.03, 0.06)), speed())
        hand.pause(LONGEST_PAUSE)
    hand.across(at, speed())
    hand.up_to(float(height), speed())
    wait(lambda: session.mode == "rest" or abs(env.target[0, 2] - session.handle.place[2]) < 0.003, 10)
    hand.pause(LONGEST_PAUSE)
    session.grip()
    page.wait_for_timeout(800)
    hand.up_to(float(rng.uniform(0.16, 0.22)), speed())
    wait(lambda: session.mode == "rest", 20)


def shown_by_mouse(what: What, page: Any, tab: Tab) -> tuple[list[tuple[Task, Demonstration]], int]:
    """Demonstrations of unseen objects that succeeded, and how many did not."""
    session, family = tab.session, Grasping()
    assert session is not None
    found: list[tuple[Task, Demonstration]] = []
    failed = index = 0
    while len(found) < what.demonstrations:
        task = family.task(family.test_splits[index % len(family.test_splits)], 500 + index)
        session.new_task(task)
        rng = np.random.default_rng([7, index])
        index += 1
        for _ in range(ATTEMPTS):
            try:
                show(page, tab, rng)
            except TimeoutError:
                session.finish()
            if session.shown and session.shown[-1].success:
                found.append((task, session.shown[-1].demonstration))
                print(f"{len(found)}: {family.caption(task)}, {len(found[-1][1])} steps", flush=True)
                break
            failed += 1
            session.undo()
    return found, failed


def compared(what: What, shown: list[tuple[Task, Demonstration]]) -> list[Row]:
    """Success of all packaged learners of grasping after the mouse's and after the expert's demonstrations."""
    family = Grasping()
    experts = [one for (one,) in family.demonstrate([task for task, _ in shown], 1, seed=0)]
    rows = []
    for choice in (one for one in learning.choices() if one.family == "grasping"):
        learner = learning.loaded(choice.run)
        for who, demonstrations in (("mouse", [one for _, one in shown]), ("expert", experts)):
            skills = [learning.learned(learner, [one], family) for one in demonstrations]
            scores = np.array([
                [learning.many(skill, family, task, what.tries, 1).mean() for skill, (task, _) in
                 zip(skills, shown, strict=True)]
            ])  # fmt: skip
            ms = float(np.median([skill.milliseconds for skill in skills]))
            rows.append(
                Row(method=choice.method, shots=1, value=float(scores.mean()), ci95=bootstrap(scores, shares=True),
                    seeds=1, tasks=len(shown), episodes=what.tries, workload=f"shown by {who}", ms=round(ms, 2),
                    scores=scores.round(4).tolist())
            )  # fmt: skip
    return rows


def moving(tab: Tab, shown: list[tuple[Task, Demonstration]]) -> list[Row]:
    """Milliseconds from the click on 'Learn' to the first step of the robot that learned."""
    session, rows = tab.session, []
    assert session is not None
    for choice in session.choices:
        if choice.family != "grasping":
            continue
        took = []
        for task, demonstration in shown:
            session.choose(choice)
            session.new_task(task)
            session.add(demonstration)
            tab.act(session.learn)
            wait(lambda: session.moving_ms > 0)
            took.append(session.moving_ms)
        note = f"at most {max(took):.0f} ms"
        rows.append(
            Row(method=choice.method, workload="click to motion", ms=round(float(np.median(took)), 1), note=note)
        )
    return rows


def pictures(page: Any, tab: Tab) -> Row:
    """Pictures a second while the robot tries, drawn by the CPU; and how many the server sends."""
    session = tab.session
    assert session is not None
    page.set_viewport_size(SIZE)
    session.try_it()
    page.wait_for_timeout(2000)
    before, begun = tab.pictures, time.perf_counter()
    drawn = page.evaluate(PICTURES)
    sent = (tab.pictures - before) / (time.perf_counter() - begun)
    note = f"{drawn:.1f} a second drawn without a GPU at {SIZE['width']} x {SIZE['height']}, {sent:.1f} a second sent"
    return Row(method="the page", workload="pictures", ms=round(1e3 / drawn, 1), note=note)


def main() -> None:
    what, started = tyro.cli(What), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        studio = Studio(learning.choices(), Path(folder), port=0, seed=3)
        try:
            with mouse.browser() as browser:
                page = browser.new_page(viewport={"width": 800, "height": 450})
                tab = mouse.opened(page, studio, 120)
                shown, failed = shown_by_mouse(what, page, tab)
                rows = [*moving(tab, shown), pictures(page, tab)]
        finally:
            studio.close()
    rows = [*compared(what, shown), *rows]
    protocol = (
        f"Demonstrations of {len(shown)} unseen objects by real mouse events in the studio's page, with detours, "
        f"pauses, jitter and an aim beside the best one ({failed} more did not succeed and were given again), and the "
        f"expert's of the same objects; {what.tries} tries in new scenes after each. Times are of the page's server."
    )
    command = f"python -m benchmarks.studio --demonstrations {what.demonstrations} --tries {what.tries}"
    cell = Cell.measured_here(
        cell="studio", metric="success", unit="fraction", rows=rows, protocol=protocol, command=command,
        seconds=time.perf_counter() - started,
    )  # fmt: skip
    if what.output is not None:
        cell.write(what.output)
    print_table(cell)


if __name__ == "__main__":
    main()
