"""Demonstrations, skills and bundles as files: saved into one folder, loaded from it, and uploaded into it.

They are the files that the command line and the library read and write. Nothing that comes from a browser is ever
unpickled, is larger than `MOST`, or lands elsewhere than in that folder under a name of plain letters.
"""

import re
import shlex
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickstudy import datasets, robot
from quickstudy.datasets.episodes import Episode
from quickstudy.errors import QuickstudyError
from quickstudy.families.remote import about_of
from quickstudy.io import files
from quickstudy.results.adaptation import demonstrations_in
from quickstudy.studio.learning import Choice, Learned, loaded
from quickstudy.studio.session import Session

if TYPE_CHECKING:
    from quickstudy.studio.page import Tab

MOST = 20 * 2**20
"""Bytes of an uploaded file."""
_SKILL, _DEMONSTRATIONS, _BUNDLE = ".safetensors", ".npz", ".quickstudy"


def plain_name(given: str) -> str:
    """A file's name without its folder, of letters, digits, '-', '_' and one ending.

    Raises:
        QuickstudyError: nothing is left of it.
    """
    last = given.replace("\\", "/").rsplit("/", 1)[-1]
    stem, dot, ending = last.rpartition(".")
    stem, ending = (stem, ending) if dot else (last, "")
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:60]
    ending = re.sub(r"[^a-z0-9]", "", ending.lower())[:12]
    if not stem:
        raise QuickstudyError(f"A name needs a letter or digit; got '{given[:60]}'.")
    return f"{stem}.{ending}" if ending else stem


def free(path: Path) -> Path:
    """The path itself, or with the first number that makes it new."""
    number = 2
    found = path
    while found.exists():
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return found


def take_upload(folder: Path, name: str, content: bytes, endings: Sequence[str]) -> Path:
    """Puts an uploaded file into the folder.

    Raises:
        QuickstudyError: too large, empty, of another kind, or the disk refuses.
    """
    if len(content) > MOST:
        raise QuickstudyError(
            f"'{name[:60]}' has {len(content) / 2**20:.1f} MB; at most {MOST / 2**20:.0f} MB are taken."
        )
    plain = plain_name(name)
    if Path(plain).suffix not in endings:
        raise QuickstudyError(f"'{plain}' is of another kind; {', '.join(endings)} are taken.")
    if not content:
        raise QuickstudyError(f"'{plain}' is empty.")
    path = free(folder / plain)
    files.write(path, content)
    return path


def save_demonstrations(session: Session, path: Path) -> str:
    """Writes all demonstrations of the task as a LeRobot data set; gives the command that learns from it.

    Raises:
        QuickstudyError: there is none, or see `quickstudy.datasets.save`.
    """
    shown, arena = list(session.shown), session.arena
    if not shown:
        raise QuickstudyError("There is no demonstration to save yet.")
    label = f"{arena.task.name}: {arena.family.caption(arena.task)}"
    episodes = [Episode(label, one.demonstration.observations, one.demonstration.actions) for one in shown]
    datasets.save(path, episodes, about_of(arena.family), "lerobot")
    return shlex.join(["quickstudy", "adapt", str(session.choice.run), "--demo", str(path)])


def load_demonstrations(session: Session, path: Path) -> None:
    """Adds the demonstrations of a file or data set.

    Raises:
        QuickstudyError: see `quickstudy.results.adaptation.demonstrations_in` and `Session.add`.
    """
    for one in demonstrations_in(path, session.arena.family):
        session.add(one)


def save_skill(session: Session, path: Path) -> str:
    """Writes what the learner learned; gives the line of Python that loads it.

    Raises:
        QuickstudyError: it has learned nothing yet.
    """
    skill = session.skill
    if not isinstance(skill, Learned) or not skill.shots:
        raise QuickstudyError("There is no skill to save yet; let it learn first.")
    robot.LearnedSkill(_robot(session.choice), skill.skill).save(path)
    return f'python -c "import quickstudy; quickstudy.load_skill({str(path)!r})"'


def load_skill(session: Session, path: Path) -> None:
    """Takes a skill of the learner that is chosen.

    Raises:
        QuickstudyError: not such a file, or of another learner.
    """
    found = robot.load_skill(path, _robot(session.choice))
    session.adopt(Learned(loaded(session.choice.run), found.tree, max(1, len(session.shown)), 0.0, None, None))


def save_bundle(session: Session, path: Path) -> str:
    """Exports the learner; gives the command that runs it on a robot.

    Raises:
        QuickstudyError: see `quickstudy.export.bundle.export`.
    """
    from quickstudy.export.bundle import export

    export(session.choice.run, path)
    return shlex.join(["quickstudy-runtime", "serve", str(path)])


def kept(folder: Path) -> list[str]:
    """What of a folder can be loaded, the newest first."""
    if not folder.is_dir():
        return []
    found = [
        path
        for path in folder.iterdir()
        if path.suffix in (_SKILL, _DEMONSTRATIONS) or (path / "meta" / "info.json").is_file()
    ]
    return [path.name for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)]


def load(session: Session, path: Path) -> None:
    """Loads a skill or demonstrations, as the ending says."""
    (load_skill if path.suffix == _SKILL else load_demonstrations)(session, path)


def _robot(choice: Choice) -> robot.Robot:
    if choice.by_trial:
        raise QuickstudyError(f"'{choice.name}' learns by its own tries: its skill is what it remembers.")
    return robot.load(choice.run)


class Files:
    """The part of the panel where files are saved and loaded."""

    def __init__(self, tab: "Tab", session: Session, place: Any) -> None:
        self._tab, self._session = tab, session
        gui, say = tab.gui, tab.say
        gui.add_markdown(say("folder", folder=tab.folder))
        self._name = gui.add_text(say("name"), initial_value="my-skill")
        for key, ending, save in (
            ("save_demonstration", "", save_demonstrations),
            ("save_skill", _SKILL, save_skill),
            ("save_bundle", _BUNDLE, save_bundle),
        ):
            tab.on(gui.add_button(say(key)), partial(self._save, ending, save))
        self._kept = gui.add_dropdown(say("kept"), self._listed())
        tab.on(gui.add_button(say("load")), self._load)
        upload = gui.add_upload_button(say("upload"), mime_type=f"{_DEMONSTRATIONS},{_SKILL}")
        tab.on_upload(upload, self._take)

    def refresh(self) -> None:
        listed = self._listed()
        if list(self._kept.options) != listed:
            self._kept.options = listed

    def draw(self) -> None:
        """Nothing here moves."""

    def _listed(self) -> list[str]:
        return kept(self._tab.folder) or [self._tab.say("nothing_kept")]

    def _save(self, ending: str, save: Any) -> None:
        path = free(self._tab.folder / f"{plain_name(self._name.value).split('.')[0]}{ending}")
        command = save(self._session, path)
        self._tab.note = self._tab.say("saved", path=path, command=command)

    def _load(self) -> None:
        name = self._kept.value
        if name in kept(self._tab.folder):
            load(self._session, self._tab.folder / name)
            self._tab.note = self._tab.say("loaded", name=name)

    def _take(self, name: str, content: bytes) -> None:
        path = take_upload(self._tab.folder, name, content, (_DEMONSTRATIONS, _SKILL))
        try:
            load(self._session, path)
        except QuickstudyError:
            path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)
            raise
        self._tab.note = self._tab.say("loaded", name=path.name)
