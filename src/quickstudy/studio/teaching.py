"""The part of the panel where a person teaches: choose, demonstrate, learn, try, compare, undo."""

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from quickstudy.results.statistics import widest
from quickstudy.studio.learning import NO_ADAPTATION, NOTHING, SCRATCH, TRANSFER, Learned
from quickstudy.studio.session import Score, Session

if TYPE_CHECKING:
    from quickstudy.studio.page import Tab

STEPS = 6
"""Of the tour."""
_OFTEN = 0.06
"""Seconds from one line below the handle to the next."""


class Teach:
    """Buttons and what they led to."""

    def __init__(self, tab: "Tab", session: Session, place: Any) -> None:
        self._tab, self._session, self._looked = tab, session, 0.0
        gui, say = tab.gui, tab.say
        self._counting = False
        self._guide(gui)
        known = list(dict.fromkeys(choice.family for choice in session.choices))
        self._families = {tab.name(family): family for family in known}
        self._family = gui.add_dropdown(
            say("family"), list(self._families), initial_value=tab.name(session.choice.family)
        )
        self._learner = gui.add_dropdown(say("learner"), self._learners(), initial_value=session.choice.name)
        self._besides = self._known_besides()
        self._beside = gui.add_dropdown(say("beside"), list(self._besides), initial_value=tab.name(session.beside))
        self._buttons: dict[str, Any] = {}
        for key, hotkey, icon, action in (
            ("new_task", "N", None, session.new_task),
            ("show", "H", None, session.show),
            ("grip", "G", None, session.grip),
            ("finish", "F", None, session.finish),
            ("expert", "X", None, session.show_by_expert),
            ("undo", "Z", None, session.undo),
            ("learn", "L", None, session.learn),
            ("try", "T", None, session.try_it),
            ("stop", "P", None, session.rest),
            ("try_20", "M", None, self._many),
        ):
            button = gui.add_button(say(key), icon=icon)
            tab.on(button, action)
            self._buttons[key] = button
            command = gui.add_command(say(key), hotkey=hotkey)
            command.on_trigger(lambda _, key=key, action=action: self._by_key(key, action))
        self._list = gui.add_markdown("")
        self._table = gui.add_markdown("")
        self._family.on_update(self._choose_family)
        self._learner.on_update(self._choose_learner)
        self._beside.on_update(self._choose_beside)

    # ---- what is shown

    def refresh(self) -> None:
        session, tab = self._session, self._tab
        for box, options, value in (
            (self._family, None, tab.name(session.choice.family)),
            (self._learner, self._learners(), session.choice.name),
            (self._beside, list(self._known_besides()), tab.name(session.beside)),
        ):
            if options is not None and list(box.options) != options:
                box.options = options
            if box.value != value:
                box.value = value
        self._besides = self._known_besides()
        mode, rests = session.mode, session.mode == "rest" and not self._counting
        by_hand, trial = mode == "shown by person", session.choice.by_trial
        usable = {
            "new_task": not self._counting, "show": rests and not trial, "grip": by_hand and session.arena.grips,
            "finish": by_hand, "expert": rests and not trial,
            "undo": bool(session.shown) or mode.startswith("shown"), "learn": rests and bool(session.shown),
            "try": rests, "stop": mode != "rest", "try_20": not self._counting and session.skill is not None,
        }  # fmt: skip
        for key, button in self._buttons.items():
            if button.disabled == usable[key]:
                button.disabled = not usable[key]
        grip = tab.say("open" if by_hand and session.handle.grip > 0 else "grip")
        if self._buttons["grip"].label != grip:
            self._buttons["grip"].label = grip
        self._list.content, self._table.content = self._shown(), self._scores()
        tab.stage.label((session.choice.name, tab.name(session.beside)))
        tab.stage.show_handle(session.handle if by_hand else None)
        if not tab.is_drawing:
            tab.on_floor(self._go_there if by_hand and session.arena.name == "navigation" else None)

    def draw(self) -> None:
        """The line below the hand, as often as the hand moves."""
        late = time.perf_counter() - self._looked > _OFTEN
        if late and self._session.mode == "shown by person" and self._session.arena.grips:
            self._looked = time.perf_counter()
            self._tab.stage.plumb(self._session.handle.place)

    def headline(self) -> str:
        session, say = self._session, self._tab.say
        if self._counting:
            return say("counting")
        if session.mode == "shown by person":
            return say(f"showing_{session.arena.name}")
        if session.mode == "shown by expert":
            return say("by_expert")
        if session.mode == "trying" and not session.moving_ms:
            return say("trying")
        skill = session.skill
        if isinstance(skill, Learned) and skill.shots:
            key = "is_learned" if session.moving_ms else "is_learned_only"
            said = say(key, ms=skill.milliseconds, moving=session.moving_ms)
            return said if skill.far is None else f"{said} {say('is_far', channel=str(skill.far))}"
        if session.shown:
            return say("is_shown")
        task = session.caption(self._tab.name)
        return say("is_new_by_trial" if session.choice.by_trial else "is_new", task=task)

    def _shown(self) -> str:
        say, tab = self._tab.say, self._tab
        if self._session.choice.by_trial:
            ends = list(self._session.trials)
            return "\n".join(
                f"- {say('trial_one', number=i + 1, end=say('worked' if end else 'failed'))}"
                for i, end in enumerate(ends)
            )
        shown = list(self._session.shown)
        if not shown:
            return say("shown_none")
        lines = []
        for i, one in enumerate(shown):
            end = say("worked" if one.success else "failed")
            lines.append(
                "- " + say("shown_one", number=i + 1, by=tab.name(one.by), steps=len(one.demonstration), end=end)
            )
            lines += [f"  - ⚠️ {say(key, **values)}" for key, values in one.faults]
        return "\n".join(lines)

    def _scores(self) -> str:
        session, say = self._session, self._tab.say
        rows = [(f"**{session.choice.name}**", session.score)]
        if session.beside != NOTHING:
            rows.append((self._tab.name(session.beside), session.beside_score))
        if not any(score.tries for _, score in rows):
            return say("no_tries")
        head = f"| | {say('score')} | {say('interval')} |\n| :-- | --: | --: |\n"
        return head + "\n".join(f"| {who} | {self._said(score)} |" for who, score in rows)

    def _said(self, score: Score) -> str:
        if not score.tries:
            return "– | –"
        low, high = widest(score.successes / score.tries, score.tries)
        said = self._tab.say("of", successes=score.successes, tries=score.tries)
        return f"{said} | {100 * low:.0f} – {100 * high:.0f} %"

    # ---- what a person does

    def _learners(self) -> list[str]:
        session = self._session
        return [choice.name for choice in session.choices if choice.family == session.choice.family]

    def _known_besides(self) -> dict[str, str]:
        """What can be compared with, by what it is called here."""
        session = self._session
        if session.choice.by_trial:
            return {self._tab.name(NOTHING): NOTHING}
        others = [
            choice.name
            for choice in session.choices
            if choice.family == session.choice.family and choice is not session.choice and not choice.by_trial
        ]
        baselines = [one for one in (NO_ADAPTATION, SCRATCH, TRANSFER) if one not in others]
        return {self._tab.name(one): one for one in (NOTHING, *baselines, *others)}

    def _choose_family(self, event: Any) -> None:
        if event.client is None:
            return
        family = self._families[event.target.value]
        if family != self._session.choice.family:
            first = next(choice for choice in self._session.choices if choice.family == family)
            self._tab.act(lambda: self._session.choose(first))

    def _choose_learner(self, event: Any) -> None:
        if event.client is None:
            return
        for choice in self._session.choices:
            if choice.family == self._session.choice.family and choice.name == event.target.value:
                self._tab.act(partial(self._session.choose, choice))

    def _choose_beside(self, event: Any) -> None:
        if event.client is not None and event.target.value in self._besides:
            beside = self._besides[event.target.value]
            self._tab.act(lambda: self._session.compare_with(beside))

    def _many(self) -> None:
        self._counting = True
        self._session.rest()
        try:
            self._session.try_many(20)
        finally:
            self._counting = False
            self._session.touch()

    def _by_key(self, key: str, action: Any) -> None:
        if not self._buttons[key].disabled:
            self._tab.act(action)

    def _go_there(self, place: Any) -> None:
        self._session.move_to(place)
        self._tab.stage.show_handle(self._session.handle)

    # ---- the tour

    def _guide(self, gui: Any) -> None:
        tab = self._tab
        tour = gui.add_button(tab.say("tour"), color="gray")
        with gui.add_folder(tab.say("tour"), visible=False) as folder:
            text = gui.add_markdown("")
            following, end = gui.add_button(tab.say("next")), gui.add_button(tab.say("end"), color="gray")
        at = 0

        def show(step: int) -> None:
            nonlocal at
            at = step if 1 <= step <= STEPS else 0
            folder.visible, tour.visible = at > 0, at == 0
            following.visible = at < STEPS
            text.content = tab.say(f"tour_{at}") if at else ""

        tour.on_click(lambda _: show(1))
        following.on_click(lambda _: show(at + 1))
        end.on_click(lambda _: show(0))
