"""What a method is to everything around it: one record beside the class that it names.

Lists on the command line, comparison, report, contract and docs are made from these records; no other file knows a
method by its name. `quickstudy.methods` finds them, those of other packages too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, is_dataclass
from typing import Any, Literal

from torch import nn

from quickstudy.errors import QuickstudyError
from quickstudy.settings import (
    Changes,
    NetworkConfig,
    NoSettings,
    PolicyConfig,
    Settings,
    TrainConfig,
    TrialConfig,
)
from quickstudy.task import TaskFamily

Experience = Literal["demonstrations", "trials"]
"""What a skill is learned from."""

Role = Literal["meta-learner", "baseline", "floor", "oracle"]
"""'baseline': what meta-learning has to beat; 'floor': without any learning; 'oracle': receives what is hidden."""


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        name: on the command line.
        summary: what it does, in a few words.
        build: the learner for settings and a family, with initial parameters from torch's generator: a
            `quickstudy.learner.MetaLearner`, or a `quickstudy.methods.trials.learner.TrialLearner`.
        paper: author, year, title, venue; empty for what has none.
        settings: dataclass of its own settings, which are options of the command line by their names.
        learns_from: of one task, at test.
        role: what it is in a comparison.
        changes: what it needs otherwise than the general defaults, on every family.
        fixed: options of its own settings that its name stands for; other values are refused.
        unsuited: why it cannot learn the tasks of a family, in a sentence; empty where it can.
        uses: of the training tasks: 'all' (it is trained on them), 'scale' (mean and deviation of their observations)
            or 'nothing'.
        pretrained_as: the method whose training it takes its parameters from, so that both differ at test alone.
        tuned: how a comparison chooses its fine-tuning on validation tasks: not at all, among steps and rates, or
            among rates in as much time as the slowest gradient-based method takes.
        gradient_based: adapts by gradient steps that meta-learning prepared; the slowest of these says how much time
            'equal-time' tuning has.
        opponent: rank among the methods over which a comparison states probabilities of improvement: 1 where it is the
            first choice; 0 where it is never that.
        compared: whether a comparison holds it where nobody says otherwise.
        always_adapted: its figure without experience would say nothing, or nothing new.

    Raises:
        QuickstudyError: when made with settings that are no dataclass.
    """

    name: str
    summary: str
    build: Callable[[Settings, TaskFamily], nn.Module]
    paper: str = ""
    settings: type = NoSettings
    learns_from: Experience = "demonstrations"
    role: Role = "meta-learner"
    changes: Changes = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    unsuited: Callable[[TaskFamily], str] = lambda family: ""
    uses: Literal["all", "scale", "nothing"] = "all"
    pretrained_as: str = ""
    tuned: Literal["", "freely", "equal-time"] = ""
    gradient_based: bool = False
    opponent: int = 0
    compared: bool = True
    always_adapted: bool = False

    def __post_init__(self) -> None:
        if not is_dataclass(self.settings):
            raise QuickstudyError(f"The settings of method '{self.name}' must be a dataclass; got {self.settings!r}.")

    @property
    def network(self) -> type:
        """The class of the settings of its base network."""
        return NetworkConfig if self.learns_from == "demonstrations" else PolicyConfig

    @property
    def training(self) -> type:
        """The class of the settings of its outer loop."""
        return TrainConfig if self.learns_from == "demonstrations" else TrialConfig

    def why_not(self, family: TaskFamily) -> str:
        """Why it cannot learn the tasks of this family, in a sentence; empty where it can."""
        if self.learns_from not in family.learned_from:
            others = " and ".join(family.learned_from)
            return (
                f"Method '{self.name}' learns from {self.learns_from}; '{family.name}' is learned from {others} only."
            )
        return self.unsuited(family)

    def contradiction(self, settings: Settings) -> str:
        """Which of its own settings says otherwise than its name, in a sentence; empty where none does."""
        for option, value in self.fixed.items():
            given = getattr(settings.algorithm, option)
            if given != value:
                return f"Method '{self.name}' always has {option} {value!r}; got {given!r}."
        return ""

    def defaults(self, name: str, family: TaskFamily, seed: int = 0) -> Settings:
        """The settings that a training on `family`, which is called `name`, starts from.

        General defaults, then those of the family for this kind of experience, what the method needs everywhere, what
        it does otherwise on this family, and what its name stands for; each goes before those before it.
        """
        settings = Settings(
            name, self.name, seed, network=self.network(), algorithm=self.settings(), training=self.training()
        )
        own: Mapping[str, Changes] = family.method_settings
        for changes in (
            own.get(self.learns_from, {}),
            self.changes,
            own.get(self.name, {}),
            {"algorithm": self.fixed},
        ):
            settings = settings.changed(changes)
        return settings


def needs_skills(name: str) -> Callable[[TaskFamily], str]:
    """`Method.unsuited` of one that means nothing where labels are to be recognised."""
    return lambda f: f"Method '{name}' is for skills; '{f.name}' is a family of recognition." if f.labelled else ""


def needs_classes(name: str) -> Callable[[TaskFamily], str]:
    """`Method.unsuited` of one that needs classes."""
    return lambda f: "" if f.labelled else f"Method '{name}' is for recognition; '{f.name}' is a family of skills."


def needs_layout(name: str) -> Callable[[TaskFamily], str]:
    """`Method.unsuited` of one that must be told where things are observed."""
    return lambda f: (
        ""
        if f.observation_layout is not None
        else f"Method '{name}' needs a family that says where hand, object and goal are observed; '{f.name}' does not."
    )


def needs_expert(name: str) -> Callable[[TaskFamily], str]:
    """`Method.unsuited` of one that asks an expert during the trials of meta-training."""
    return lambda f: (
        "" if f.has_expert else f"Method '{name}' asks an expert during its trials, and '{f.name}' has none."
    )
