"""The readers that are fuzzed: what whole input looks like, and what reading it must give where it is not refused."""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from checks.fuzz.mutation import vouched
from checks.fuzz.packing import gathered
from PIL import Image

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "runtime/src"), str(ROOT / "runtime/tests")]

Files = dict[str, bytes]


@dataclass(frozen=True)
class Reader:
    """A door of the library.

    Attributes:
        seeds: whole inputs, made below a folder.
        use: reads what lies in a folder and goes on with it as a user would; raises AssertionError where it took what
            is no data.
        repaired: checksums computed anew.
        modules: whose branches guide the fuzzer, besides those of quickstudy.
    """

    seeds: Callable[[Path], Iterator[Path]]
    use: Callable[[Path], object]
    repaired: Callable[[Files], Files] = lambda files: files
    modules: tuple[str, ...] = ()


def _recording(path: Path, reading: Any = None) -> None:
    from quickstudy import datasets

    found = datasets.load(path, reading)
    for _, (one, task) in zip(range(500), found.demonstrations(), strict=False):
        for array in (one.observations, one.actions):
            assert array.dtype.kind == "f", array.dtype
            assert np.isfinite(array).all(), "not finite"
        assert isinstance(task, str), task
    rate = found.about.rate
    assert rate is None or 0 < rate < 1e9, rate


def _only(folder: Path) -> Path:
    """The one file or folder in a folder."""
    found = sorted(folder.iterdir())
    return found[0] if len(found) == 1 else folder


def _walks(path: Path, format: str, rate: float | None = 10.0, **options: Any) -> Path:
    from quickstudy import datasets
    from recorded import walks

    about = datasets.About(rate, ("x", "y"), ("u", "v"), ("front",) if options.get("images") else ())
    datasets.save(path, walks(2, 2, **options), about, format)
    return path


def _demonstration(folder: Path) -> Iterator[Path]:
    from quickstudy.demonstration import Demonstration

    for dtype in ("f4", "f8", "i4"):
        place = folder / dtype
        place.mkdir()
        np.savez(place / "d.npz", observations=np.ones((3, 2), dtype), actions=np.zeros((3, 1), dtype))
        yield place
    place = folder / "saved"
    Demonstration(np.zeros((4, 3)), np.ones((4, 2))).save(place / "d.npz")
    yield place


def _load_demonstration(folder: Path) -> None:
    from quickstudy.demonstration import Demonstration

    one = Demonstration.load(folder / "d.npz")
    for array in (one.observations, one.actions):
        assert array.dtype in (np.float32, np.float64), array.dtype
        assert np.isfinite(array).all()
        assert array.ndim == 2, array.shape


def _arrays(folder: Path) -> Iterator[Path]:
    yield _walks(folder / "a/d.npz", "npz").parent
    yield _walks(folder / "b/d.npz", "npz", None).parent
    times = np.concatenate([np.arange(4) / 10, 5 + np.arange(5) / 10])
    (folder / "c").mkdir()
    np.savez(
        folder / "c/d.npz", observations=np.zeros((9, 2)), actions=np.ones((9, 1)), start=[0, 4, 9], times=times,
        task=["a", "b"], rewards=np.zeros(9), success=np.zeros(9, bool), observation_names=["x", "y"],
        observation_units=["m", "rad"], action_names=["u"],
    )  # fmt: skip
    yield folder / "c"


def _tables(folder: Path) -> Iterator[Path]:
    yield _walks(folder / "a/d.csv", "csv").parent
    text = "episode;task;timestamp;observation.x;action.u\n" + "".join(
        f"{e};t{e};{i / 10:g};{e + i / 7:.4f};{i}\n" for e in range(2) for i in range(4)
    )
    (folder / "b").mkdir()
    (folder / "b/d.csv").write_text(text)
    yield folder / "b"


def _lerobot(folder: Path) -> Iterator[Path]:
    from datasets.test_lerobot import as_version_2

    yield _walks(folder / "a/set", "lerobot").parent
    for version in ("v2.0", "v2.1"):
        as_version_2(_walks(folder / version / "set", "lerobot"), version)
        yield folder / version
    yield _walks(folder / "films/set", "lerobot", images=True).parent


def _load_lerobot(folder: Path) -> None:
    from quickstudy import datasets

    path = _only(folder)
    _recording(path)
    found = datasets.load(path)
    if found.about.cameras:
        for _, episode in zip(range(2), found.with_images(), strict=False):
            assert all(len(images) == len(episode) for images in episode.images.values())


def _minari(folder: Path) -> Iterator[Path]:
    from datasets.test_minari import box, made

    yield _walks(folder / "a/set", "minari").parent
    spaces = {"type": "Dict", "subspaces": {"arm": box(3), "goal": box(2)}}
    made(folder / "b/set", lambda i, n: {"arm": np.zeros((n + 1, 3)), "goal": np.ones((n + 1, 2))}, spaces)
    yield folder / "b"


def _robomimic(folder: Path) -> Iterator[Path]:
    from datasets.test_robomimic import make, mask

    yield mask(make(folder / "a/low_dim.hdf5", 3), train=[0, 1], valid=[2]).parent
    yield make(folder / "b/isaac.hdf5", 2, env={"env_name": "Isaac", "type": 2}).parent


def _bags(kind: str) -> Callable[[Path], Iterator[Path]]:
    def seeds(folder: Path) -> Iterator[Path]:
        from datasets.test_bags import drive, write

        write(folder / "a" / "pour_1", kind, drive(0.5))
        yield folder / "a"

    return seeds


def _load_bag(folder: Path) -> None:
    from datasets.test_bags import READING

    _recording(_only(folder), READING)


def _maps(folder: Path) -> Iterator[Path]:
    free = np.ones((12, 16), bool)
    free[[0, -1]] = free[:, [0, -1]] = False
    pixels = np.where(free, 254, 0).astype("u1")
    for name in ("server", "plain", "ai", "arrays"):
        (folder / name).mkdir()
    Image.fromarray(pixels).save(folder / "server/m.pgm")
    (folder / "server/m.yaml").write_text(
        "image: m.pgm\nresolution: 0.05\norigin: [-1.0, 2.0, 0.1]\nnegate: 0\noccupied_thresh: 0.65\n"
        "free_thresh: 0.196\nmode: trinary\n"
    )
    Image.fromarray(pixels).save(folder / "plain/m.png")
    rows = "\n".join("".join(".@"[not cell] for cell in row) for row in free)
    (folder / "ai/m.map").write_text(f"type octile\nheight 12\nwidth 16\nmap\n{rows}\n")
    np.savez(folder / "arrays/m.npz", a=np.where(free, 0, 100).astype("i1"), maps=np.stack([free, free]),
             names=["x", "y"], resolution=0.1, origin=np.zeros(2))  # fmt: skip
    return iter([folder / name for name in ("server", "plain", "ai", "arrays")])


def _load_maps(folder: Path) -> None:
    from quickstudy.families.navigation import maps

    for found in maps.read(folder, 0.1):
        assert found.free.any()
        assert 0 < found.resolution < np.inf
        assert np.isfinite(found.window(found.draw_centre(np.random.default_rng(0)))).all()


_CUBE = "".join(f"v {x} {y} {z}\n" for x in (0, 0.05) for y in (0, 0.05) for z in (0, 0.05)) + (
    "f 1 2 4\nf 1 4 3\nf 5 7 8\nf 5 8 6\nf 1 5 6\nf 1 6 2\nf 3 4 8\nf 3 8 7\nf 1 3 7\nf 1 7 5\nf 2 6 8\nf 2 8 4\n"
)


def _meshes(folder: Path) -> Iterator[Path]:
    import trimesh

    for name in ("obj", "stl", "text", "mtl"):
        (folder / name).mkdir()
    (folder / "obj/m.obj").write_text(_CUBE)
    mesh = trimesh.load(folder / "obj/m.obj")
    mesh.export(folder / "stl/m.stl")
    mesh.export(folder / "text/m.stl", file_type="stl_ascii")
    (folder / "mtl/m.obj").write_text(f"mtllib m.mtl\nusemtl a\n{_CUBE}")
    (folder / "mtl/m.mtl").write_text("newmtl a\nKd 0.5 0.5 0.5\nmap_Kd m.png\n")
    return iter([folder / name for name in ("obj", "stl", "text", "mtl")])


def _load_meshes(folder: Path) -> None:
    from quickstudy.errors import sound
    from quickstudy.families.grasping import meshes

    for path in sorted(folder.iterdir()):
        if path.suffix in meshes.SUFFIXES:
            with sound(f"'{path}' cannot be made an object"):  # as `load`, which goes on to cut it for seconds
                mesh = meshes._read(path, "m")
            assert np.isfinite(mesh.vertices).all()
            assert 0 < mesh.volume < 8


_MJCF = """<mujoco model="arm"><compiler meshdir="."/><include file="part.xml"/>
<asset><mesh name="m" file="m.obj" scale="1 1 1"/></asset>
<worldbody><body name="hand" pos="0 0 1"><joint name="j" type="slide" axis="0 0 1" range="-1 1"/>
<geom type="mesh" mesh="m" mass="1"/><site name="tool"/></body></worldbody></mujoco>
"""


def _mjcf(folder: Path) -> Iterator[Path]:
    (folder / "a").mkdir()
    (folder / "a/arm.xml").write_text(_MJCF)
    (folder / "a/part.xml").write_text('<mujocoinclude><option timestep="0.002"/></mujocoinclude>\n')
    (folder / "a/m.obj").write_text(_CUBE)
    yield folder / "a"


def _load_mjcf(folder: Path) -> None:
    from quickstudy.errors import sound
    from quickstudy.families.grasping import arm

    with sound("The model cannot be made"):  # as `check_robot`
        model = arm.read_model(folder / "arm.xml").compile()
    assert np.isfinite(model.body_mass).all()


@cache
def _trained() -> Path:
    """A small learner's run folder, made once a process."""
    from quickstudy.experiment import Experiment
    from quickstudy.results import runs

    folder = Path(tempfile.mkdtemp(prefix="fuzz-run-")) / "run"
    changes = {
        "training": {"steps": 2, "validate_every": 2, "batching": "vmap", "meta_batch": 2},
        "data": {"tasks": 4, "validation_tasks": 2, "validation_episodes": 1},
        "network": {"hidden": (4,)},
    }
    runs.train_run(Experiment.of("point-navigation", "maml", changes=changes), folder, False, "quickstudy train")
    runs.evaluate_run(folder, None, [0, 1], 3, 2, 0, "best", "quickstudy evaluate")
    return folder


def _checkpoints(folder: Path) -> Iterator[Path]:
    files = gathered(_trained())
    kept = {name: content for name, content in files.items() if name.startswith("checkpoints/")}
    for which in ("best", "last"):
        for name, content in kept.items():
            if f"/{which}/" in name:
                place = folder / which / name.replace(f"/{which}/", "/best/")
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
        yield folder / which


def _load_checkpoint(folder: Path) -> None:
    from quickstudy.results import runs

    experiment, learner = runs.load(folder)
    for name, tensor in learner.state_dict().items():
        assert not tensor.is_floating_point() or bool(tensor.isfinite().all()), name
    demonstration = experiment.family.demonstrate(experiment.family.tasks("train", 1), 1, seed=0)[0]
    from quickstudy.evaluation import adapt

    adapt(learner, demonstration, experiment.family)


def _run(folder: Path) -> Iterator[Path]:
    files = gathered(_trained())
    place = folder / "a/runs/one"
    for name, content in files.items():
        if name == "run.json" or name.startswith(("checkpoints/last", "results/")):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)
    yield folder / "a"
    place = folder / "b/runs/comparison"
    place.mkdir(parents=True)
    note = json.loads(files["run.json"]) | {"kind": "comparison", "methods": ["maml"], "splits": ["test"]}
    (place / "run.json").write_text(json.dumps(note | {"protocol": {"seeds": 1}}))
    (place / "settings.json").write_text(json.dumps({"maml": note["settings"]}))
    (place / "maml-seed0").mkdir()
    (place / "maml-seed0/test-3x2-shots-0-1.json").write_bytes(
        next(content for name, content in files.items() if name.startswith("evaluations/"))
    )
    yield folder / "b"


def _load_run(folder: Path) -> None:
    from quickstudy.io.provenance import NOTE, read_note
    from quickstudy.results import runs

    for found in runs.listed(folder):
        assert isinstance(found.headline, str)
        assert len(found.headline) < 500, found.headline
        assert found.headline.isprintable(), repr(found.headline)
        assert not found.headline.startswith(("Recursion", "Attribute", "Type", "Key", "Index")), found.headline
    for path in folder.rglob(NOTE):
        read_note(path.parent)


def _results(folder: Path) -> Iterator[Path]:
    files = gathered(_trained())
    for i, name in enumerate(name for name in files if name.startswith(("results/", "evaluations/"))):
        place = folder / str(i) / name.split("/")[0]
        place.mkdir(parents=True)
        (place / "r.json").write_bytes(files[name])
        yield place.parent


def _load_results(folder: Path) -> None:
    from quickstudy.evaluation import Evaluation
    from quickstudy.results.evidence import Cell
    from quickstudy.results.tables import to_markdown

    for path in folder.rglob("*.json"):
        if path.parent.name == "results":
            text = to_markdown(Cell.read(path))
            assert "\x1b" not in text, repr(text)
        else:
            found = Evaluation.load(path)
            for values in found.metrics.values():
                assert values.dtype == np.float64, values.dtype
                assert values.ndim == 3, values.shape


@cache
def _robot() -> Any:
    from quickstudy import robot

    return robot.load(_trained())


def _skills(folder: Path) -> Iterator[Path]:
    (folder / "a").mkdir()
    _robot().begin().save(folder / "a/skill.safetensors")
    yield folder / "a"


def _load_skill(folder: Path) -> None:
    from quickstudy.robot import load_skill

    skill = load_skill(folder / "skill.safetensors", _robot())
    action = skill.act(np.zeros(_robot().family.observation_size))
    assert np.isfinite(action).all()


def _bundle(folder: Path) -> Iterator[Path]:
    import bundles

    (folder / "a").mkdir()
    bundles.write(folder / "a/bundle")
    yield folder / "a"


def _load_bundle(folder: Path) -> None:
    import quickstudy_runtime as runtime

    robot = runtime.load(folder / "bundle")
    width, wide = len(robot.bundle.observation), len(robot.bundle.action)
    for make in (robot.begin, lambda: robot.adapt([(np.zeros((2, width)), np.zeros((2, wide)))])):
        action = make().act(np.full(width, 0.1))
        assert action.shape == (wide,)
        assert np.isfinite(action).all()


def _messages(folder: Path) -> Iterator[Path]:
    from quickstudy_runtime import messages

    plain = [
        {"observation": [0.1] * 3, "stamp": 1.5, "sequence": 3, "reward": 0.0, "done": False},
        {"reset": True, "last": [0.0] * 2},
        {"adapt": [{"observations": [[0.1] * 3] * 2, "actions": [[0.0] * 2] * 2}]},
        {"state": np.zeros(3)},
    ]
    for i, one in enumerate(plain):
        (folder / str(i)).mkdir()
        (folder / str(i) / "message").write_bytes(messages.pack(one))
        yield folder / str(i)


@cache
def _served() -> Any:
    import bundles
    import quickstudy_runtime as runtime

    return runtime.load(bundles.write(Path(tempfile.mkdtemp(prefix="fuzz-bundle-")) / "bundle"))


def _load_message(folder: Path) -> None:
    from quickstudy_runtime import messages, server

    if not (folder / "message").is_file():
        return
    robot = _served()
    answer = server._Session(robot, robot.begin(), 2).answer((folder / "message").read_bytes())
    if isinstance(answer, str):
        raise _refusal()(answer)
    for action in messages.unpack(answer).get("actions", ()):
        assert np.isfinite(action).all()


@cache
def _refusal() -> type[Exception]:
    from quickstudy_runtime import QuickstudyError

    return QuickstudyError


@cache
def refusals() -> tuple[type[Exception], ...]:
    """What a reader may raise."""
    from quickstudy.errors import QuickstudyError

    return QuickstudyError, _refusal()


READERS = {
    "demonstration": Reader(_demonstration, _load_demonstration, modules=("numpy.lib",)),
    "arrays": Reader(_arrays, lambda folder: _recording(folder / "d.npz"), modules=("numpy.lib",)),
    "table": Reader(_tables, lambda folder: _recording(folder / "d.csv")),
    "lerobot": Reader(_lerobot, _load_lerobot),
    "minari": Reader(_minari, lambda folder: _recording(_only(folder)), modules=("minari",)),
    "robomimic": Reader(_robomimic, lambda folder: _recording(_only(folder))),
    "bag-ros1": Reader(_bags("bag"), _load_bag, modules=("rosbags",)),
    "bag-ros2": Reader(_bags("db3"), _load_bag, modules=("rosbags",)),
    "bag-mcap": Reader(_bags("mcap"), _load_bag, modules=("rosbags",)),
    "map": Reader(_maps, _load_maps, modules=("yaml", "PIL")),
    "mesh": Reader(_meshes, _load_meshes, modules=("trimesh.exchange",)),
    "mjcf": Reader(_mjcf, _load_mjcf),
    "checkpoint": Reader(_checkpoints, _load_checkpoint, vouched),
    "run": Reader(_run, _load_run, vouched),
    "results": Reader(_results, _load_results),
    "skill": Reader(_skills, _load_skill),
    "bundle": Reader(_bundle, _load_bundle),
    "message": Reader(_messages, _load_message),
}
