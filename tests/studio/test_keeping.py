"""Files of the studio: the command line reads them, and nothing from a browser leaves the folder."""

import pickle
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from quickstudy import load_skill
from quickstudy.errors import QuickstudyError
from quickstudy.results.adaptation import adapt_run
from quickstudy.studio import keeping, learning
from quickstudy.studio.session import Session

MATCHING = next(one for one in learning.choices() if (one.family, one.method) == ("grasping", "matching"))


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    made = Session([MATCHING], seed=3)
    made.show_by_expert()
    until = time.monotonic() + 60
    while not made.shown and time.monotonic() < until:
        time.sleep(0.02)
    yield made
    made.close()


def test_demonstrations_are_saved_loaded_and_learned_from_on_the_command_line(session: Session, tmp_path: Path) -> None:
    place = tmp_path / "mine"
    command = keeping.save_demonstrations(session, place)
    assert command.endswith(f"--demo {place}")
    adapted = adapt_run(MATCHING.run, [place], tmp_path / "skill.safetensors")
    assert adapted.after < adapted.before
    before = len(session.shown)
    keeping.load(session, place)
    assert len(session.shown) == before + 1
    again = session.shown[-1].demonstration
    np.testing.assert_allclose(again.actions, session.shown[0].demonstration.actions, rtol=1e-6)
    session.undo()


def test_a_skill_is_saved_and_loaded_by_the_library_and_by_the_studio(session: Session, tmp_path: Path) -> None:
    session.learn()
    session.rest()
    path = tmp_path / "skill.safetensors"
    keeping.save_skill(session, path)
    assert session.skill is not None
    seen = session.observation
    wanted = session.skill.policy()(seen[None, None])[0, 0]
    np.testing.assert_allclose(load_skill(path).act(seen), wanted, rtol=1e-5, atol=1e-6)
    session.undo()
    assert session.skill is None
    keeping.load(session, path)
    assert session.skill is not None
    np.testing.assert_allclose(session.skill.policy()(seen[None, None])[0, 0], wanted, rtol=1e-5, atol=1e-6)
    assert keeping.kept(tmp_path) == ["skill.safetensors"]


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ("../../etc/passwd.npz", "passwd.npz"),
        ("..\\..\\evil.npz", "evil.npz"),
        ("/absolute/cup.stl", "cup.stl"),
        ("my cup (2).STL", "my-cup-2.stl"),
        ("a\x00b.npz", "a-b.npz"),
    ],
)
def test_names_from_a_browser_become_plain_ones(given: str, plain: str) -> None:
    assert keeping.plain_name(given) == plain


@pytest.mark.parametrize("given", ["", "..", "/", "...npz"])
def test_names_of_nothing_are_refused(given: str) -> None:
    with pytest.raises(QuickstudyError, match="needs a letter"):
        keeping.plain_name(given)


def test_uploads_are_limited_in_size_and_kind_and_stay_in_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "studio"
    path = keeping.take_upload(folder, "../../x.npz", b"some", (".npz",))
    assert path == folder / "x.npz"
    assert keeping.take_upload(folder, "x.npz", b"other", (".npz",)) == folder / "x-2.npz"
    assert path.read_bytes() == b"some"
    for name, content, said in (
        ("x.pkl", b"some", "another kind"),
        ("x.npz", b"", "empty"),
        ("x.npz", bytes(keeping.MOST + 1), "at most 20 MB"),
    ):
        with pytest.raises(QuickstudyError, match=said):
            keeping.take_upload(folder, name, content, (".npz",))
    assert sorted(found.name for found in tmp_path.rglob("*.*")) == ["x-2.npz", "x.npz"]


def test_an_upload_is_never_unpickled(session: Session, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "exploded",))  # type: ignore[return-value]

    objects = np.array([Bomb()], dtype=object)
    np.savez(tmp_path / "bomb.npz", observations=objects, actions=objects)
    (tmp_path / "bomb.safetensors").write_bytes(pickle.dumps(Bomb()))
    for name in ("bomb.npz", "bomb.safetensors"):
        with pytest.raises(QuickstudyError):
            keeping.load(session, tmp_path / name)
    assert not (tmp_path / "exploded").exists()
