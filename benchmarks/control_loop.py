"""How fast the simulated arm stops when something on its way from sensor to motor breaks, and that it then holds.

    python -m benchmarks.control_loop [--minutes 10] [--run RUN]

Three processes on real sockets: `quickstudy-runtime serve`, the control program `examples/robot/control.py`, and here
the arm at 50 Hz in real time. Once the arm is on its way in an episode, one thing breaks for a second; then all is well
again, and the arm must still grasp. Writes benchmarks/results/control-loop.json.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro
from examples.robot.simulated_arm import HOLD, RATE, SimulatedRobot

import quickstudy_runtime
from quickstudy.cli import main as quickstudy
from quickstudy.export.bundle import export
from quickstudy.families.grasping.family import Grasping
from quickstudy.results.evidence import Cell, Row
from quickstudy.results.tables import print_table

ROOT = Path(__file__).parents[1]
OBSERVATIONS = ("late", "lost", "repeated", "out of order")
PROCESSES = ("server killed", "server frozen", "control program killed", "control program frozen")
NOTHING = "nothing"
FAULTS = (NOTHING, *(f"observations {fault}" for fault in OBSERVATIONS), *PROCESSES)
BROKEN, EPISODE, MOVING, STILL = 1.0, 8.0, 0.08, 0.001
"""Seconds of a fault and at most of an episode; metres a second from which the arm counts as moving, and metres within
which it stays once it counts as stopped."""
RUN = "run"
TASK, TASKS, HORIZONS = 3, 40, (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class What:
    """What is measured."""

    minutes: float = 10.0
    """How long, all faults in turn."""
    run: Path | None = None
    """A run of grasping by a method that learns from demonstrations; by default one is trained, in half a minute."""
    output: Path | None = Path("benchmarks/results/control-loop.json")
    """Where the table goes."""


@dataclass
class Found:
    """What happened with one kind of fault.

    Attributes:
        rest_ms: from the fault to the action of rest at the motors.
        still_ms: from the fault until the hand stays within a millimetre for as long as the fault lasts.
        way_mm: how far it went until then.
        success: of each episode.
    """

    rest_ms: list[float] = field(default_factory=list)
    still_ms: list[float] = field(default_factory=list)
    way_mm: list[float] = field(default_factory=list)
    success: list[bool] = field(default_factory=list)


def prepare(folder: Path, run: Path | None, family: Grasping) -> tuple[Path, Path]:
    """A bundle and a demonstration of the task."""
    if run is not None:
        (folder / RUN).symlink_to(run.resolve())
    else:
        words = "--training.steps 400 --training.validate-every 400 --data.tasks 120 --data.demonstrations 3"
        words += f" --data.validation-tasks 2 --method maml --output-dir {folder / RUN}"
        quickstudy(["train", "grasping", *words.split()])
    bundle = export(folder / RUN, folder / "grasping.quickstudy").path
    shown = family.demonstrate([family.task("sizes", TASK)], 1, seed=0)[0][0]
    np.savez(folder / "demonstration.npz", observations=shown.observations, actions=shown.actions)
    return bundle, folder / "demonstration.npz"


class Loop:
    """The three processes."""

    def __init__(self, bundle: Path, demonstration: Path, family: Grasping, horizon: int = 1) -> None:
        self._words = ["serve", str(bundle), "--demo", str(demonstration), "--max-age", "0.1"]
        self._words += ["--horizon", str(horizon)]
        self._environment = os.environ | {"PYTHONPATH": str(Path(quickstudy_runtime.__file__).parents[1])}
        self._port = 0
        self.robot = SimulatedRobot(family, TASK)
        self.serve()
        self.control()

    def serve(self) -> None:
        command = [sys.executable, "-m", "quickstudy_runtime", *self._words, "--port", str(self._port)]
        self.server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self._environment)
        assert self.server.stdout is not None
        if not self._port:
            self._port = int(self.server.stdout.readline().split("ws://127.0.0.1:")[1].split()[0])

    def control(self) -> None:
        script = ROOT / "examples/robot/control.py"
        words = [sys.executable, script, f"ws://127.0.0.1:{self._port}", "--arm", f"127.0.0.1:{self.robot.port}"]
        self.controller = subprocess.Popen([str(word) for word in words], env=self._environment)

    def begin(self, fault: str) -> None:
        process = self.server if fault.startswith("server") else self.controller
        if fault in PROCESSES:
            process.send_signal(signal.SIGKILL if fault.endswith("killed") else signal.SIGSTOP)

    def end(self, fault: str) -> None:
        if fault.endswith("frozen"):
            (self.server if fault.startswith("server") else self.controller).send_signal(signal.SIGCONT)
        elif fault == "server killed":
            self.server.wait()
            self.server.stdout.close()  # type: ignore[union-attr]
            self.serve()
        elif fault == "control program killed":
            self.controller.wait()
            self.control()

    def close(self) -> None:
        for process in (self.server, self.controller):
            process.kill()
            process.wait()
        self.server.stdout.close()  # type: ignore[union-attr]
        self.robot.close()


def episode(loop: Loop, fault: str, seed: int, found: Found) -> None:
    """One episode in real time with one fault in it."""
    robot, rng = loop.robot, np.random.default_rng(seed)
    robot.begin(seed)
    kept: list[dict] = []
    place, broken, rested, path, over = robot.arm.tool, None, None, [], 0.0
    after = time.monotonic() + rng.uniform(0.1, 1.0)
    ends = time.monotonic() + EPISODE + (BROKEN if fault != NOTHING else 0.0)
    while time.monotonic() < ends and robot.arm.lifted_for < HOLD:
        now = time.monotonic()
        moves = bool(path) and np.linalg.norm(path[-1]) * RATE > MOVING
        if broken is None and fault != NOTHING and moves and now > after and not over:
            broken, rested, path = now, None, []
            loop.begin(fault)
        elif broken is not None and now > broken + BROKEN:
            loop.end(fault)
            found.rest_ms.append(1e3 * (len(path) if rested is None else rested) / RATE)
            measure(np.array(path), found)
            broken, over = None, now
        message = robot.observe()
        if broken is None or fault == "observations late":
            kept = [*kept[-20:], message]
        if broken is None or fault in PROCESSES:
            robot.send(message)
        elif fault == "observations late" and len(kept) > 15:
            robot.send(kept[-16])
        elif fault == "observations repeated":
            robot.send(kept[-1])
        elif fault == "observations out of order":
            robot.send(kept[rng.integers(len(kept))])
        robot.tick()
        path.append(robot.arm.tool - place)
        if broken is not None:
            rested = (rested or len(path)) if robot.stopped else None
        place = robot.arm.tool
    found.success.append(robot.arm.lifted_for >= HOLD)


def measure(steps: np.ndarray, found: Found) -> None:
    """When the hand stopped, from its steps [tick, 3] in metres since the fault, and how far it went until then."""
    places = np.vstack([np.zeros((1, 3)), np.cumsum(steps, axis=0)])
    left = [np.linalg.norm(places[tick:] - places[tick], axis=1).max() for tick in range(len(places))]
    stopped = next(tick for tick, way in enumerate(left) if way <= STILL)
    found.still_ms.append(1e3 * stopped / RATE)
    found.way_mm.append(1e3 * float(np.linalg.norm(places[stopped])))


def measured(
    bundle: Path, demonstration: Path, family: Grasping, seconds: float, faults: Sequence[str] = FAULTS
) -> tuple[dict[str, Found], SimulatedRobot]:
    """Every fault in turn, at least once, for the time that is asked."""
    found: dict[str, Found] = defaultdict(Found)
    loop = Loop(bundle, demonstration, family)
    try:
        wait(loop.robot)
        until, seed = time.monotonic() + seconds, 0
        while time.monotonic() < until or seed < len(faults):
            fault = faults[seed % len(faults)]
            seed += 1
            episode(loop, fault, seed, found[fault])
            wait(loop.robot)
    finally:
        loop.close()
    return found, loop.robot


def success(bundle: Path, family: Grasping, horizon: int = 1) -> float:
    """Of held-out objects at the family's 20 Hz, where an action is asked for every so many steps."""
    tasks = [family.task("sizes", index) for index in range(TASKS)]
    robot = quickstudy_runtime.load(bundle, quickstudy_runtime.Guard(margin=100.0))  # what the guard costs is not asked
    shown = family.demonstrate(tasks, 1, seed=0)
    skills = [robot.adapt([(one.observations, one.actions)]) for (one,) in shown]
    held: list[np.ndarray] = []

    def policy(observations: np.ndarray) -> np.ndarray:
        seen = zip(skills, observations[:, 0], strict=True)
        held.append(held[-1] if len(held) % horizon else np.stack([skill.act(x) for skill, x in seen]))
        return held[-1][:, None]

    return float(family.run(tasks, 1, policy, seed=1)["success"].mean())


def costs(bundle: Path, family: Grasping) -> list[Row]:
    """The success that fewer observations cost."""
    return [
        Row(method=f"--horizon {horizon}", workload="chunks", value=success(bundle, family, horizon), tasks=TASKS,
            episodes=1, note=f"{50 * horizon} ms between observations")
        for horizon in HORIZONS
    ]  # fmt: skip


def wait(robot: SimulatedRobot) -> None:
    """Until commands come and the arm is no longer held, at most 20 seconds."""
    robot.begin(0)
    until = time.monotonic() + 20
    while robot.stopped and time.monotonic() < until:
        robot.send(robot.observe())
        robot.tick()


def main() -> None:
    what, started = tyro.cli(What), time.perf_counter()
    family, rows = Grasping(threads=1), []
    with tempfile.TemporaryDirectory() as name:
        bundle, demonstration = prepare(Path(name), what.run, family)
        found, robot = measured(bundle, demonstration, family, 60 * what.minutes)
        cost = costs(bundle, family)
    for fault, one in found.items():
        said = ""
        if one.still_ms:
            said = (
                f"rest at the motors after {np.median(one.rest_ms):.0f} ms (at most {max(one.rest_ms):.0f}); stopped "
                f"after {np.median(one.still_ms):.0f} ms (at most {max(one.still_ms):.0f}), {max(one.way_mm):.1f} mm on"
            )
        longest = round(max(one.still_ms), 1) if one.still_ms else None
        success, count = round(float(np.mean(one.success)), 3), len(one.success)
        rows.append(Row(method=fault, workload="50 Hz", value=success, episodes=count, ms=longest, note=said))
    trips = 1e3 * np.array(robot.round_trips)
    note = f"99.9th percentile {np.percentile(trips, 99.9):.1f} ms; {len(trips):,} commands; a tick was at most "
    note += f"{1e3 * robot.overrun:.1f} ms late"
    rows.append(Row(method="round trip", workload="50 Hz", ms=round(float(np.median(trips)), 2), note=note))
    rows += cost
    cell = Cell.measured_here(
        cell="control-loop", metric="success", unit="fraction", rows=rows, seconds=time.perf_counter() - started,
        command=f"python -m benchmarks.control_loop --minutes {what.minutes:g}",
        protocol="Server, control program and MuJoCo arm are three processes on real sockets; at a random time while "
        f"the hand moves faster than {100 * MOVING:g} cm/s, one thing breaks for {BROKEN:g} s; ms is the longest time "
        f"from then until the hand stayed within {1000 * STILL:g} mm; success is the object held up for {HOLD:g} s in "
        f"the end. Chunks: the family's own 20 Hz, {TASKS} held-out objects.",
    )  # fmt: skip
    if what.output is not None:
        cell.write(what.output)
    print_table(cell)


if __name__ == "__main__":
    main()
