"""Commands of learning by trial: `quickstudy rl-train`, `quickstudy rl-evaluate` and `quickstudy rl-profile`."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import tyro
from rich.table import Column, Table
from tyro.conf import Positional, arg

from quickstudy.io.progress import console
from quickstudy.methods.trials.catalogue import TrialSettings, defaults

if TYPE_CHECKING:
    from quickstudy.methods.trials.profile import Profile


@dataclass(frozen=True)
class RLTrain(TrialSettings):
    """Meta-train a method that learns by trial and reward: quickstudy rl-train navigation2d --method maml-trpo.

    Every default shown is that of the named method."""

    family: Positional[Annotated[str, arg(metavar="FAMILY")]]
    """One of: navigation2d navigation2d-sparse cheetah-direction cheetah-velocity ml1-reach ml1-push ml1-pick-place
    ml10 navigation navigation-dynamics grasping."""
    method: str = "maml-trpo"
    """One of: maml-trpo maml-by-return maml-ppo promp reptile-ppo rl2 rl2-mann rl2-dagger pearl meta-lstm matched
    transfer domain-randomisation oracle scratch."""
    seed: int = 0
    """Draws the initial parameters, the tasks and the noise."""
    output_dir: Path | None = None
    """The run folder; runs/<family>-<method>/<time> by default."""
    resume: bool = False
    """Go on with the training in --output-dir exactly where it stopped."""

    def run(self) -> None:
        from quickstudy.methods.trials import runs
        from quickstudy.methods.trials.catalogue import family
        from quickstudy.results.runs import new_folder

        settings = _settings(self)
        folder = self.output_dir or new_folder(Path("runs"), self.family, self.method)
        runs.check_folder(folder, settings, self.resume)
        of = family(self.family)
        console.print(f"{of.name}: {of.protocol}.")
        trained = runs.train(settings, of, folder)
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
    tasks: int | None = None
    """Held-out tasks; 100, or all where there are fewer."""
    episodes_per_task: int | None = None
    """Episodes of each task in a round; for a learner with a memory, trials. 20, and 10 in Meta-World."""
    seed: int = 0
    """Draws the noise."""

    def run(self) -> None:
        from quickstudy.cli import command_line
        from quickstudy.methods.trials import runs
        from quickstudy.results import evidence as results

        cell = runs.evaluate_run(
            self.run_folder, self.split, self.rounds, self.tasks, self.episodes_per_task, self.seed, command_line()
        )
        results.print_table(cell)


@dataclass(frozen=True)
class RLProfile(TrialSettings):
    """Tell where the time of meta-training goes, and its steps per second: quickstudy rl-profile ml1-push.

    Takes the settings of rl-train; nothing is kept."""

    family: Positional[Annotated[str, arg(metavar="FAMILY")]]
    """One of those of rl-train."""
    method: str = "maml-trpo"
    """One of those of rl-train, but scratch, which learns nothing from the training tasks."""
    seed: int = 0
    """Draws the initial parameters, the tasks and the noise."""
    outer_steps: int = 3
    """Steps of the outer loop that count; one more goes before."""

    def run(self) -> None:
        from quickstudy.methods.trials.catalogue import build, family
        from quickstudy.methods.trials.profile import profile

        settings, of = _settings(self), family(self.family)
        found = profile(build(settings, of), of, settings.training, self.outer_steps, self.seed)
        console.print(_profile_table(self, of.protocol, found))
        steps, seconds = sum(p.steps for p in found), sum(p.seconds for p in found)
        console.print(f"[bold]{steps / seconds:,.0f}[/] environment steps per second of meta-training.")


def _profile_table(asked: RLProfile, protocol: str, found: "Sequence[Profile]") -> Table:
    training, threads = asked.training, torch.get_num_threads()
    table = Table(
        "",
        Column("s an outer step", justify="right"),
        Column("%", justify="right"),
        title=f"{asked.method} on {asked.family}",
        caption=f"{training.meta_batch} tasks x {training.episodes_per_task} episodes, mean of {len(found)} outer steps, "
        f"torch threads: {threads}; {protocol}.",
        title_justify="left",
        caption_justify="left",
    )
    total = sum(p.seconds for p in found)
    for part in ("simulation", "policy", "update"):
        seconds = sum(getattr(p, part) for p in found)
        table.add_row(part, f"{seconds / len(found):.3g}", f"{100 * seconds / total:.0f}")
    return table


def _settings(command: TrialSettings) -> TrialSettings:
    """Those of a command, without what else it was asked."""
    return TrialSettings(**{name: getattr(command, name) for name in TrialSettings.__dataclass_fields__})


def train_defaults(command: type[TrialSettings], arguments: Sequence[str]) -> Any:
    """`RLTrain` or `RLProfile` with the defaults of the family and method that are named in the arguments."""
    words = [word for word in arguments[1:2] if not word.startswith("-")]
    method = next((word.removeprefix("--method=") for word in arguments if word.startswith("--method=")), None)
    method = next((after for word, after in pairwise(arguments) if word == "--method"), method)
    settings = vars(defaults(words[0] if words else "navigation2d", method or "maml-trpo"))
    return command(**{**settings, "family": settings["family"] if words else tyro.MISSING})
