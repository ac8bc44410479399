"""The doctor: a good set is told so, and each way to spoil one is found."""

import json
from dataclasses import replace

import numpy as np
import pytest

import commands
from doctor import spoilt
from quickstudy import doctor
from quickstudy.datasets import About, Episode
from quickstudy.doctor import learning


def found(tmp_path, episodes: list[Episode], about: About = spoilt.ABOUT) -> dict[str, list[doctor.Finding]]:
    """Findings by point, but for those that are good."""
    _, findings = doctor.examine(spoilt.write(tmp_path / "set.npz", episodes, about))
    told: dict[str, list[doctor.Finding]] = {}
    for one in findings:
        if one.verdict != "good":
            told.setdefault(one.point, []).append(one)
    return told


def test_a_good_set_is_told_so(tmp_path):
    told = found(tmp_path, spoilt.reaching())
    assert told.keys() <= {"duplicated observations"}, told


def test_the_lag_between_action_and_state_is_measured(tmp_path):
    rng, made = np.random.default_rng(0), []
    for task in range(4):
        for _ in range(4):
            wanted = np.cumsum(rng.normal(size=(80, 2)), 0)
            state = np.concatenate([np.repeat(wanted[:1], 7, 0), wanted[:-7]])
            made.append(Episode(f"t{task}", np.concatenate([state, state[:, :1] * 0 + task], 1), wanted))
    (lag,) = found(tmp_path, made)["lag"]
    assert "by 7 steps (0.35 s)" in lag.said


def _spoil(name: str) -> tuple[list[Episode], About]:
    episodes, about = spoilt.reaching(steps=40), spoilt.ABOUT
    first = episodes[0]
    match name:
        case "constant observations":
            episodes = [
                replace(e, observations=np.column_stack([e.observations[:, :2], np.ones(len(e))])) for e in episodes
            ]
        case "constant actions":
            episodes = [replace(e, actions=e.actions * 0) for e in episodes]
        case "saturated":
            episodes = [replace(e, actions=np.clip(e.actions, -0.01, 0.01)) for e in episodes]
        case "units":
            about = replace(about, observation_units=("rad", "rad", ""))
            episodes = [replace(e, observations=e.observations * 57.3) for e in episodes]
        case "wrapped angles":
            turned = [
                (e.observations + 0.9 * np.arange(len(e))[:, None] / 4 + np.pi) % (2 * np.pi) - np.pi for e in episodes
            ]
            episodes = [replace(e, observations=x) for e, x in zip(episodes, turned, strict=True)]
        case "observation jumps":
            x = first.observations.copy()
            x[20:25] += 5.0
            episodes = spoilt.changed(episodes, 0, observations=x)
        case "too short":
            episodes = spoilt.changed(episodes, 3, observations=first.observations[:3], actions=first.actions[:3])
        case "twice":
            episodes = spoilt.changed(episodes, 1, observations=first.observations, actions=first.actions)
        case "idle starts":
            rest = np.repeat(first.observations[:1], 30, 0)
            x, u = np.concatenate([rest, first.observations]), np.concatenate([np.zeros((30, 2)), first.actions])
            episodes = spoilt.changed(episodes, 0, observations=x, actions=u)
        case "frozen states":
            x = first.observations.copy()
            x[10:35] = x[10]
            episodes = spoilt.changed(episodes, 0, observations=x)
        case "outliers":
            episodes = spoilt.changed(
                episodes, 0, observations=-4 * first.observations[::-1] + 3, actions=first.actions[::-1]
            )
        case "failures":
            episodes = [
                replace(e, success=np.arange(len(e)) == (len(e) - 1 if i % 3 else -1)) for i, e in enumerate(episodes)
            ]
        case "number":
            episodes = [e for e in episodes if e.task in ("reach 0", "reach 1")]
        case "episodes":
            episodes = [e for i, e in enumerate(episodes) if e.task != "reach 3" or i % 6 < 2]
        case "balance":
            episodes = spoilt.reaching(tasks=3, episodes=40, steps=20)
            episodes = [e for i, e in enumerate(episodes) if e.task != "reach 2" or i % 40 < 3]
        case "spelling":
            episodes = [replace(e, task="reach-0") if i in (0, 1, 2) else e for i, e in enumerate(episodes)]
        case "merged":
            episodes = [replace(e, task="Reach  0.") if i in (0, 1, 2) else e for i, e in enumerate(episodes)]
        case "told apart":
            episodes = [replace(e, task=f"reach {i % 12}") for i, e in enumerate(episodes)]
        case "starts":
            episodes = [replace(e, observations=e.observations - e.observations[0]) for e in episodes]
        case "actions act":
            episodes = [
                replace(e, actions=np.random.default_rng(i).normal(size=e.actions.shape))
                for i, e in enumerate(episodes)
            ]
        case "rate":
            about = replace(about, rate=None)
    return episodes, about


@pytest.mark.parametrize(
    ("point", "verdict"),
    [
        ("constant observations", "note"), ("constant actions", "bad"), ("saturated", "note"), ("units", "bad"),
        ("wrapped angles", "note"), ("observation jumps", "note"), ("too short", "note"), ("twice", "bad"),
        ("idle starts", "note"), ("frozen states", "bad"), ("outliers", "note"), ("failures", "note"),
        ("number", "bad"),
        ("episodes", "bad"), ("balance", "note"), ("spelling", "note"), ("merged", "note"),
        ("told apart", "note"), ("starts", "note"),
        ("actions act", "note"), ("rate", "note"),
    ],
)  # fmt: skip
def test_each_way_to_spoil_a_set_is_found(tmp_path, point, verdict):
    told = found(tmp_path, *_spoil(point))
    assert told[point][0].verdict == verdict
    assert all(one.remedy for one in told[point])


def test_meta_learning_helps_where_it_does_and_not_where_it_cannot(tmp_path):
    recordings, _ = doctor.examine(spoilt.write(tmp_path / "good.npz", spoilt.reaching(tasks=10, steps=20)))
    made = learning.curves(recordings, steps=120)
    assert made.shots == (1, 2, 3)
    assert made.errors["meta-learned"].shape == (10, 3)
    assert made.mean("meta-learned")[0] < 0.9 * min(made.mean(who)[0] for who in learning.FLOORS)
    told = {one.point: one for one in learning.judged(made)}
    assert told["meta-learning helps"].verdict == "good"
    assert "would need about" in told["demonstrations needed"].said
    recordings, _ = doctor.examine(spoilt.write(tmp_path / "noise.npz", spoilt.noise()))
    told = {one.point: one for one in learning.judged(learning.curves(recordings, steps=60))}
    assert told["enough"].verdict == "bad"


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    spoilt.write(tmp_path / "good.npz", spoilt.reaching(tasks=8, steps=20))
    commands.quickstudy("data", "doctor", "good.npz", "--steps", "60", "--output", "out")
    assert "quickstudy train good.npz" in capsys.readouterr().out
    told = json.loads((tmp_path / "out/doctor.json").read_text())
    assert not told["useless"]
    assert told["curves"]["meta-learned"]["shots"] == [1, 2, 3]
    assert (tmp_path / "out/doctor.png").stat().st_size > 5000
    spoilt.write(tmp_path / "bad.npz", spoilt.reaching(tasks=2, steps=20))
    (tmp_path / "text.csv").write_text("a,b\n1,2\n")
    for name in ("bad.npz", "text.csv"):
        with pytest.raises(SystemExit) as stopped:
            commands.quickstudy("data", "doctor", name, "--no-learning")
        assert stopped.value.code == 1
        assert "bad" in capsys.readouterr().out


def test_what_cannot_be_read_is_written_as_well(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "half.csv").write_text("episode,task\n0,a\n")
    with pytest.raises(SystemExit) as stopped:
        commands.quickstudy("data", "doctor", "half.csv")
    assert stopped.value.code == 1
    assert "not possible before it can be read" in capsys.readouterr().out
    written = json.loads((tmp_path / "half-doctor/doctor.json").read_text())
    assert written["useless"]
    assert written["findings"][0]["point"] == "readable"
