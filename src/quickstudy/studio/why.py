"""The part of the panel that shows why a skill is what it is."""

import functools
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from quickstudy.data import DemonstrationSet
from quickstudy.families.base import SimulatedFamily
from quickstudy.methods.demonstrations.mann import MANN
from quickstudy.methods.demonstrations.task_similarity import TaskSiamese, as_support, rank
from quickstudy.results.statistics import widest
from quickstudy.results.task_similarity import calibrated_matcher
from quickstudy.studio.learning import Learned
from quickstudy.studio.session import Session

if TYPE_CHECKING:
    from quickstudy.studio.page import Tab

KNOWN, _EACH, _STEPS = 40, 2, 300
"""Known tasks that a demonstration is compared with, demonstrations of each, and training steps of the comparison."""
_OFTEN = 0.25
"""Seconds from one look at attention and memory to the next."""


@functools.lru_cache(maxsize=8)
def _known(family: SimulatedFamily) -> tuple[TaskSiamese, torch.Tensor, tuple[object, ...]]:
    """Twins that tell tasks of a family apart, and embeddings of known tasks; seconds, at the first call."""
    tasks = family.tasks("train", KNOWN)
    matcher, embedded, _ = calibrated_matcher(DemonstrationSet.record(family, tasks, _EACH, 0, None), None, _STEPS)
    return matcher.eval(), embedded, tuple(tasks)


def similar(session: Session, most: int = 5) -> list[tuple[str, float]]:
    """Captions of the known tasks that the demonstrations are most like, and how probable it is that they are one."""
    family = session.arena.family
    matcher, embedded, tasks = _known(family)
    with torch.no_grad():
        ranked = rank(matcher, list(tasks), embedded, as_support([one.demonstration for one in session.shown]))  # type: ignore[arg-type]
    return [(family.caption(task), probability) for task, probability in ranked[:most]]


@torch.no_grad()
def memory(found: Learned, observation: np.ndarray) -> tuple[int, int, int, float] | None:
    """Of a memory: slots that were written, slots in all, the one that is read most now, and its share of all reads."""
    if not isinstance(found.learner, MANN):
        return None
    x = torch.from_numpy(np.asarray(observation, np.float32))
    reads = found.learner.write(found.skill, x)[1].weights.mean(0)
    written = int((found.skill.rows.abs().sum(-1) > 1e-6).sum())
    return written, len(reads), int(reads.argmax()), float(reads.max())


class Why:
    """What can be seen of a skill."""

    def __init__(self, tab: "Tab", session: Session, place: Any) -> None:
        self._tab, self._session, self._place, self._looked = tab, session, place, 0.0
        self._drawn: tuple[tuple[int, int, int], ...] = ()
        gui, say = tab.gui, tab.say
        self._attention = gui.add_checkbox(say("attention"), initial_value=False)
        self._said = gui.add_markdown("")
        tab.on(gui.add_button(say("similar")), self._find)
        self._similar = gui.add_markdown("")
        self._plot: Any = None
        self._curve = gui.add_markdown(say("curve_none"))

    def refresh(self) -> None:
        self._plot_curve()
        if not self._session.shown:
            self._similar.content = ""

    def draw(self) -> None:
        if time.perf_counter() - self._looked < _OFTEN:
            return
        self._looked = time.perf_counter()
        found = self._session.attention() if self._attention.value else None
        self._tab.stage.attend(found)
        said = self._about(found is not None)
        if said != self._said.content:
            self._said.content = said

    def _about(self, attends: bool) -> str:
        session, say = self._session, self._tab.say
        skill = session.skill
        if not isinstance(skill, Learned) or not skill.shots:
            return say("nothing_learned")
        lines = []
        if skill.moved is not None:
            lines.append(say("moved", percent=100 * skill.moved))
        else:
            lines.append(say("not_moved"))
        reads = memory(skill, session.observation)
        if reads is not None:
            written, slots, slot, share = reads
            lines.append(say("memory", written=written, slots=slots, slot=slot, percent=100 * share))
        if attends:
            lines.append(say("attention_said"))
        elif self._attention.value:
            lines.append(say("no_attention"))
        return "\n\n".join(lines)

    def _find(self) -> None:
        tab, session = self._tab, self._session
        if not session.shown:
            tab.note = tab.say("similar_none")
            return
        tab.note = tab.say("similar_busy", count=KNOWN)
        rows = similar(session)
        said = "\n".join(f"- {caption}: {100 * probability:.0f} %" for caption, probability in rows)
        self._similar.content = f"{tab.say('similar_said')}\n{said}"
        tab.note = ""

    def _plot_curve(self) -> None:
        curve = tuple(self._session.curve)
        if curve == self._drawn:
            return
        self._drawn = curve
        if self._plot is not None:
            self._plot.remove()
            self._plot = None
        self._curve.visible = not curve
        if not curve:
            return
        at = sorted({number for number, _, _ in curve})
        sums = [np.sum([[s, n] for number, s, n in curve if number == one], 0) for one in at]
        mean = np.array([s / n for s, n in sums])
        low, high = np.array([widest(float(m), int(n)) for m, (_, n) in zip(mean, sums, strict=True)]).T
        say = self._tab.say
        with self._place:
            self._plot = self._tab.gui.add_uplot(
                (np.array(at, float), 100 * mean, 100 * low, 100 * high),
                (
                    {"label": say("curve_x")},
                    {"label": say("curve_y"), "stroke": "#185ca8", "width": 2, "points": {"show": True, "size": 8}},
                    {"label": "2.5 %", "stroke": "#8fb3d9", "dash": [4, 4]},
                    {"label": "97.5 %", "stroke": "#8fb3d9", "dash": [4, 4]},
                ),
                title=say("curve"),
                scales={"x": {"time": False, "range": [min(at) - 0.5, max(at) + 0.5]}, "y": {"range": [-3, 103]}},
                legend={"show": False},
                aspect=1.6,
            )
