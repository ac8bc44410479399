"""Trains, shares and compares on CUDA devices, and holds the gradient against the processor's. Not part of the tests.

    python checks/cuda_training.py

Exits with 1 where something differs, or 77 where there is no such device.
"""

import sys
import tempfile
from pathlib import Path

import torch

from quickstudy.batching import OuterStep
from quickstudy.experiment import Experiment
from quickstudy.results.compare import compare

TOLERANCE = 1e-3
"""Of the gradient's length: products on the device may be rounded to TF32, and sums have another order."""

CHANGES = {"training": {"steps": 20, "validate_every": 10, "meta_batch": 8}, "data": {"validation_tasks": 4}}


def experiment(method: str = "maml", seed: int = 0) -> Experiment:
    return Experiment.of("sinusoid", method, seed, CHANGES)


def gradient_differs_by(device: str) -> float:
    """The distance of the device's meta-gradient from the processor's, in lengths of that one."""
    made, found = experiment(), []
    source = made.source()
    assert source is not None
    meta_batch = source.sample(torch.Generator().manual_seed(0), 8, 5, 5)
    for place in ("cpu", device):
        learner = made.build().to(place)
        OuterStep(learner)(meta_batch.to(place))
        found.append(torch.cat([p.grad.flatten().cpu() for p in learner.parameters() if p.grad is not None]))
    return float((found[1] - found[0]).norm() / found[0].norm())


def trained_differs_by(device: str, machines: object = None) -> float:
    """The largest difference of a parameter after a training there from one on the processor, in lengths of all."""
    ours, theirs = (
        torch.cat([p.detach().flatten().cpu() for p in learner.parameters()])
        for learner in (experiment().train(), experiment().train(device=device, machines=machines))  # type: ignore[arg-type]
    )
    return float((ours - theirs).norm() / ours.norm())


def main() -> None:
    if not torch.cuda.is_available():
        print("There is no CUDA device here: nothing was checked.")
        sys.exit(77)
    found = {f"gradient on cuda:{i}": gradient_differs_by(f"cuda:{i}") for i in range(torch.cuda.device_count())}
    found["training on cuda"] = trained_differs_by("cuda")
    try:
        from quickstudy.cluster.connection import ClusterConfig, connected
    except Exception as error:
        print(f"Not on a cluster: {error}")
    else:
        for workers in sorted({1, torch.cuda.device_count()}):
            with connected(ClusterConfig(workers=workers, device="cuda")) as cluster:
                found[f"training by {workers} workers with a device each"] = trained_differs_by("cpu", cluster)
    with tempfile.TemporaryDirectory() as folder:
        protocol = {"seeds": 1, "shots": (1,), "tasks": 5, "episodes": 1, "device": "cuda"}
        cells = compare(
            "sinusoid", ("maml", "reptile"), folder=Path(folder) / "c", experiment_for=experiment, **protocol
        )
        print(f"compared {len(cells[0].rows)} rows")
    for what, difference in found.items():
        print(f"{what}: differs by {difference:.1e}")
    print(torch.cuda.get_device_name())
    sys.exit(any(difference > TOLERANCE for difference in found.values()))


if __name__ == "__main__":
    main()
