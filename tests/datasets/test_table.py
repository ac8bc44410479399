"""Tables as spreadsheets, loggers and people write them: read as what they say, or refused by name."""

from pathlib import Path

import numpy as np
import pytest

from quickstudy import datasets
from quickstudy.datasets import About, Episode, Recording
from quickstudy.errors import QuickstudyError
from quickstudy.settings import ReadingConfig
from recorded import refused

HEAD = "episode,task,observation.x,action.u\n"
PLAIN = HEAD + "".join(f"{e},t{e},{i}.5,0.25\n" for e in range(3) for i in range(3))


def read(path: Path, text: str | bytes, **reading: object) -> Recording:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return datasets.load(path, ReadingConfig(**reading))


WRITTEN = {
    "crlf": PLAIN.replace("\n", "\r\n").encode(),
    "cr": PLAIN.replace("\n", "\r").encode(),
    "bom": PLAIN.encode("utf-8-sig"),
    "utf-16": PLAIN.encode("utf-16"),
    "semicolons": PLAIN.replace(",", ";").replace(".5", ",5").replace("0.25", "0,25").encode(),
    "semicolons in utf-16": PLAIN.replace(",", ";").replace(".5", ",5").replace("0.25", "0,25").encode("utf-16"),
    "semicolons and points": PLAIN.replace(",", ";").encode(),
    "tabs": PLAIN.replace(",", "\t").encode(),
    "tabs and decimal commas": PLAIN.replace(",", "\t").replace(".5", ",5").replace("0.25", "0,25").encode(),
    "quoted decimal commas": PLAIN.replace("0.25", '"0,25"').replace(".5,", ',5",').replace(",0,5", ',"0,5')
    .replace(",1,5", ',"1,5').replace(",2,5", ',"2,5').encode(),
    "bars": PLAIN.replace(",", "|").encode(),
    "blanks after commas": PLAIN.replace(",", ", ").encode(),
    "blank lines": PLAIN.replace("0,t0,1.5", "\n0,t0,1.5").encode(),
    "capitals": PLAIN.replace("episode,task,observation", "Episode,TASK,Observation").encode(),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_tables_of_every_region(tmp_path, name):
    found = read(tmp_path / "a.csv", WRITTEN[name])
    assert list(found.tasks) == ["t0", "t1", "t2"]
    assert found.about == About(None, ("x",), ("u",))
    for demonstration, _ in found.demonstrations():
        assert demonstration.observations.ravel().tolist() == [0.5, 1.5, 2.5]
        assert demonstration.actions.ravel().tolist() == [0.25] * 3


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (PLAIN.replace(",t1,", ",,"), "episode 1 (line 5): it has no task"),
        (PLAIN.replace("1,t1,1.5", "1, ,1.5"), "episode 1 (line 6): it has no task"),
        (PLAIN.replace("2.5", '"1,002.5"'), "invalid value '1,002.5'"),
        (PLAIN.replace("0.5,", '"1,002",').replace("1.5,", '"2,003",').replace("2.5,", "7,").replace("0.25", "1"),
         "'1,002' in 'observation.x', which may be a decimal comma or one between thousands"),
        (PLAIN.replace("2.5", '"2,5"'), "numbers with a comma ('2,5' of 'observation.x') and with a point"),
        (PLAIN.replace("2.5", "1'002"), "invalid value '1'002'"),
        (PLAIN.replace(",", ";").replace(".5", ",5").replace("2,5", "1.002,5"), "and with a point"),
        (HEAD.replace("action", "observation.X,action") + "0,a,1,2,1\n", "'observation.x' and 'observation.X', which"),
        (HEAD.replace("action", "Episode,action") + "0,a,1,2,1\n", "'episode' and 'Episode', which say the same"),
        ("episode,task,observation.x,observation. x ,action.u\n0,a,1,2,1\n",
         "'observation.x' and 'observation. x ', which say the same"),
        ("time,timestamp_s," + HEAD + "0,0,0,a,1,1\n", "has the time stamps"),
        ("success," + HEAD + "2,0,a,1,1\n", "line 2: success must be 0 or 1; it is 2"),
        ("success," + HEAD + ",0,a,1,1\n", "line 2: success must be 0 or 1; it is nan"),
        ("reward," + HEAD + "1,0,a,1,1\n,0,a,1,1\n", "line 3: reward must be a number; it is nan"),
        (PLAIN.replace("1.5", "1e39"), "more than float32 holds"),
    ],
)  # fmt: skip
def test_what_may_be_two_things_is_refused(tmp_path, text, sentence):
    (tmp_path / "bad.csv").write_text(text)
    assert sentence in refused(tmp_path / "bad.csv")


def test_quoted_lines_and_labels(tmp_path):
    text = HEAD + '0,"push,\nleft",1,1\n0,"push,\nleft",2,1\n1," pull ",3,1\n'
    assert list(read(tmp_path / "a.csv", text).tasks) == ["push,\nleft", "pull"]
    assert [len(one) for one in datasets.load(tmp_path / "a.csv")] == [2, 1]


def log(stamps: list[list[str]], name: str = "timestamp") -> str:
    head = f"episode,task,{name},observation.x,action.u\n"
    return head + "".join(f"{e},t,{s},{i},0\n" for e, some in enumerate(stamps) for i, s in enumerate(some))


def stamps(rate: float, write: str, episodes: int = 2, steps: int = 60, jitter: float = 0.0, start: float = 0.0):
    rng = np.random.default_rng(1)
    return [
        [format(start + i / rate + rng.uniform(-jitter, jitter), write) for i in range(steps)] for _ in range(episodes)
    ]


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        (log(stamps(30, ".3f")), 30),
        (log(stamps(30, ".2f")), 30),
        (log(stamps(60, ".3f")), 60),
        (log(stamps(50, ".6f", jitter=1e-3)), 50),
        (log(stamps(100, ".3f", start=1.7e9)), 100),
        (log(stamps(30, ".2f", episodes=90, steps=2)), 30),
        (log(stamps(30, ".3f", steps=1)), None),
        (log([*stamps(30, ".3f", steps=1), *stamps(30, ".3f", episodes=1)]), 30),
        (log([[str(10 * i) for i in range(9)]] * 2, "timestamp_ms"), 100),
        (log([[str(10 * i) for i in range(9)]] * 2, "timestamp [ms]"), 100),
        (log([[str(20_000_000 * i) for i in range(9)]] * 2, "time_ns"), 50),
        (log([[f"2026-11-30T10:00:00.{20 * i:03}" for i in range(9)]] * 2), 50),
        (log([[f"2026-11-30 10:00:00.{20 * i:03}Z" for i in range(9)]] * 2), 50),
    ],
)
def test_the_rate_is_that_of_most_steps(tmp_path, text, rate):
    found = read(tmp_path / "log.csv", text)
    assert found.about.rate == rate
    assert sum(map(len, found)) == text.count("\n") - 1


def test_jitter_is_kept(tmp_path):
    assert 5e-4 < read(tmp_path / "a.csv", log(stamps(50, ".6f", jitter=1e-3))).about.jitter < 2e-3
    assert read(tmp_path / "a.csv", log(stamps(50, ".6f"))).about.jitter < 1e-6


MILLISECONDS = log([[str(10 * i) for i in range(20)]] * 2)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (MILLISECONDS, "100 steps a second in ms: say their unit by --time-unit s, ms, us or ns"),
        (log([[str(1_700_000_000_000 + 10 * i) for i in range(20)]]), "100 steps a second in ms"),
        (log([["0", "0.1", "0.2", "0.1"]]), "line 5: time stamps must rise; this one is 0.1 s and the one before 0.2"),
        (log([["0.5"] * 5]), "line 3: time stamps must rise; this one and the one before are both 0.5 s"),
        (log([["0", "", "0.2"]]), "line 3: the time stamp is missing"),
        (log([["2026-11-30T10:00:00.000", "", "2026-11-30T10:00:00.040"]]), "line 3: the time stamp is missing"),
        (log([["10:00:00.000", "10:00:00.020"]]), "invalid value '10:00:00.000'"),
        (log([*stamps(30, ".3f"), *stamps(25, ".3f", episodes=1)]), "where 30 steps a second, the frame rate of the"),
        (log(stamps(30, ".6f", jitter=5e-3)), "which --rate 30 brings uneven ones to"),
    ],
)
def test_time_stamps_that_do_not_tell_a_rate(tmp_path, text, sentence):
    (tmp_path / "log.csv").write_text(text)
    assert sentence in refused(tmp_path / "log.csv")


def test_unit_and_rate_may_be_said(tmp_path):
    assert read(tmp_path / "a.csv", MILLISECONDS, time_unit="ms").about.rate == 100
    assert read(tmp_path / "a.csv", MILLISECONDS, time_unit="s").about.rate == 0.1
    found = read(tmp_path / "a.csv", log([*stamps(30, ".3f"), *stamps(25, ".3f", episodes=1)]), rate=10.0)
    assert found.about.rate == 10
    for episode in found:
        np.testing.assert_allclose(np.diff(episode.times), 0.1)
    assert [len(episode) for episode in found] == [20, 20, 24]
    assert read(tmp_path / "a.csv", PLAIN, rate=10.0).about.rate == 10


@pytest.mark.parametrize("rate", [0.01, 0.5, 1.0, 2.0, 30.0, 1000.0])
def test_a_rate_comes_back(tmp_path, rate):
    datasets.save(tmp_path / "a.csv", [Episode("t", np.zeros((9, 1)), np.zeros((9, 1)))], About(rate))
    assert datasets.load(tmp_path / "a.csv").about.rate == rate


def test_channels_by_name(tmp_path):
    text = "episode,task,px,observation.y,py,vx,action.u\n0,a,1,2,3,4,5\n"
    found = read(tmp_path / "a.csv", text, observation=("py", "y", "px"), action=("vx",))
    assert found.about == About(None, ("py", "y", "px"), ("vx",))
    (one,) = found
    assert one.observations.tolist() == [[3.0, 2.0, 1.0]]
    assert one.actions.tolist() == [[4.0]]
    with pytest.raises(QuickstudyError, match=r"Unknown column for --action of '.*a\.csv' 'vz'. Did you mean 'vx'"):
        read(tmp_path / "a.csv", text, action=("vz",))
    both = read(tmp_path / "a.csv", text, observation=("px",), action=("px",))
    assert next(iter(both)).actions.tolist() == [[1.0]]


def test_a_recording_in_the_order_of_another(tmp_path):
    found = read(tmp_path / "a.csv", "episode,task,observation.a [deg],observation.b,action.u\n0,t,1,2,3\n")
    assert found.about.observation_units == ("deg", "")
    turned = found.in_order(("b", "a [deg]"), ("u",))
    assert turned.about.observation_units == ("", "deg")
    assert next(iter(turned)).observations.tolist() == [[2.0, 1.0]]
    with pytest.raises(QuickstudyError, match=r"a\.csv' lacks the observation channel 'c'; it has a \[deg\], b"):
        found.in_order(("b", "c"), ("u",))


def test_positions_on_earth_survive(tmp_path):
    rows = (f"0,a,{388096.40 + 0.02 * i:.3f},{5572094.10 + 0.02 * i:.3f},1\n" for i in range(20))
    found = read(tmp_path / "a.csv", "episode,task,observation.e,observation.n,action.v\n" + "".join(rows))
    ((demonstration, _),) = found.demonstrations()
    np.testing.assert_allclose(np.diff(demonstration.observations, axis=0), 0.02, atol=1e-6)
    for ending in ("csv", "npz"):
        datasets.save(tmp_path / f"again.{ending}", found, found.about)
        (again,) = datasets.load(tmp_path / f"again.{ending}")
        np.testing.assert_array_equal(again.observations, demonstration.observations)


def test_times_and_units_in_arrays(tmp_path):
    times = np.tile((np.arange(30) / 30).round(2), (2, 1))
    x = np.zeros((2, 30, 1))
    arrays = {"observations": x, "actions": x, "task": ["a", "b"], "observation_units": ["deg"]}
    np.savez(tmp_path / "a.npz", **arrays, times=times)
    found = datasets.load(tmp_path / "a.npz")
    assert (found.about.rate, found.about.observation_units) == (30, ("deg",))
    assert [len(one) for one in datasets.load(tmp_path / "a.npz", ReadingConfig(rate=10.0))] == [10, 10]
    datasets.save(tmp_path / "b.npz", found, found.about)
    assert datasets.load(tmp_path / "b.npz").about == found.about
    np.savez(tmp_path / "a.npz", **arrays, times=(1000 * times).astype(int))
    assert "say their unit by --time-unit" in refused(tmp_path / "a.npz")
    assert datasets.load(tmp_path / "a.npz", ReadingConfig(time_unit="ms")).about.rate == 30
    np.savez(tmp_path / "a.npz", **{**arrays, "task": ["a", " "]})
    assert "Episode 1 has no task" in refused(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", **arrays, rate=30.0)
    (one, _) = datasets.load(tmp_path / "a.npz", ReadingConfig(rate=15.0))
    assert len(one) == 15


def test_success_as_pandas_writes_it(tmp_path):
    rows = [f"{e},t,{i},0,{i == 2 and e == 1}" for e in range(2) for i in range(3)]
    path = tmp_path / "pandas.csv"
    path.write_text("\n".join(["episode,task,observation.x,action.u,success", *rows]) + "\n")
    assert [e.success.tolist() for e in datasets.load(path)] == [[False] * 3, [False, False, True]]


def test_labels_of_arrays_are_texts(tmp_path):
    arrays = {"observations": np.zeros((2, 3, 2)), "actions": np.zeros((2, 3, 1))}
    np.savez(tmp_path / "bytes.npz", task=np.array([b"open", "schlie\u00dfen".encode()]), **arrays)
    assert datasets.load(tmp_path / "bytes.npz").tasks == ["open", "schließen"]
    np.savez(tmp_path / "missing.npz", task=np.array([1.0, np.nan]), **arrays)
    with pytest.raises(QuickstudyError, match="Episode 1 has no task"):
        datasets.load(tmp_path / "missing.npz")
