"""Commands of learning by trial: `quickstudy rl-train` and `quickstudy rl-evaluate`."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional, arg

from quickstudy.progress import console
from quickstudy.rl.methods import TrialSettings, defaults


@dataclass(frozen=True)
class RLTrain(TrialSettings):
    """Meta-train a method that learns by trial and reward: quickstudy rl-train navigation2d --method maml-trpo.

    Every default shown is that of the named method."""

    family: Positional[Annotated[str, arg(metavar="FAMILY")]]
    """One of: navigation2d navigation2d-sparse cheetah-direction cheetah-velocity navigation navigation-dynamics
    grasping."""
    method: str = "maml-trpo"
    """One of: maml-trpo maml-ppo promp reptile-ppo rl2 rl2-mann pearl meta-lstm matched transfer domain-randomisation
    oracle scratch."""
    seed: int = 0
    """Draws the initial parameters, the tasks and the noise."""
    output_dir: Path | None = None
    """The run folder; runs/<family>-<method>/<time> by default."""
    resume: bool = False
    """Go on with the training in --output-dir exactly where it stopped."""

    def run(self) -> None:
        from quickstudy.rl import runs
        from quickstudy.rl.methods import family
        from quickstudy.runs import new_folder

        settings = TrialSettings(**{name: getattr(self, name) for name in TrialSettings.__dataclass_fields__})
        folder = self.output_dir or new_folder(Path("runs"), self.family, self.method)
        runs.check_folder(folder, settings, self.resume)
        trained = runs.train(settings, family(self.family), folder)
        if trained.interrupted:
            raise KeyboardInterrupt
        console.print(f"The run is in [bold]{folder}[/]; its curves: tensorboard --logdir {folder}/tensorboard")
        console.print(f"Next: [bold]quickstudy rl-evaluate {folder}[/]")


@dataclass(frozen=True)
class RLEvaluate:
    """Let a trained learner act and adapt on tasks it never saw, and tell round by round how well it does."""

    run_folder: Positional[Annotated[Path, arg(metavar="RUN", help="The folder of a training.")]]
    split: str | None = None
    """A split of the family; by default the first of its test splits."""
    rounds: int = 3
    """Adaptations: gradient steps, or for a learner with a memory episodes."""
    tasks: int = 100
    """Held-out tasks."""
    lanes: int = 20
    """Episodes of each task in a round; for a learner with a memory, trials."""
    seed: int = 0
    """Draws the noise."""

    def run(self) -> None:
        from quickstudy import results
        from quickstudy.cli import command_line
        from quickstudy.rl import runs

        cell = runs.evaluate_run(
            self.run_folder, self.split, self.rounds, self.tasks, self.lanes, self.seed, command_line()
        )
        results.print_table(cell)


def train_defaults(arguments: Sequence[str]) -> Any:
    """`RLTrain` with the defaults of the family and method that are named in the arguments."""
    words = [word for word in arguments[1:2] if not word.startswith("-")]
    method = next((word.removeprefix("--method=") for word in arguments if word.startswith("--method=")), None)
    method = next((after for word, after in pairwise(arguments) if word == "--method"), method)
    settings = vars(defaults(words[0] if words else "navigation2d", method or "maml-trpo"))
    return RLTrain(**{**settings, "family": settings["family"] if words else tyro.MISSING})
