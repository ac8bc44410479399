"""The settings, as `--policy.type=quickstudy --policy.bundle=...`."""

from dataclasses import dataclass, field

from lerobot.configs.policies import PreTrainedConfig

NOT_TRAINED = "A bundle is trained by 'quickstudy train'; LeRobot only acts with it."


@PreTrainedConfig.register_subclass("quickstudy")
@dataclass
class QuickstudyConfig(PreTrainedConfig):
    """What the policy is made of.

    Attributes:
        bundle: what `quickstudy export` wrote.
        demonstrations: .npz files of the task, with 'observations' and 'actions'.
        skill: in place of demonstrations, a skill that was saved.
        on_bad, rest, margin, slew: as of `quickstudy_runtime.Guard`.
    """

    bundle: str = ""
    demonstrations: list[str] = field(default_factory=list)
    skill: str | None = None
    on_bad: str | None = None
    rest: list[float] | None = None
    margin: float = 1.0
    slew: float | None = None
    device: str | None = "cpu"
    push_to_hub: bool = False

    def validate_features(self) -> None:
        """Nothing: the policy compares its bundle with what it is given."""

    @property
    def observation_delta_indices(self) -> None:
        return None

    @property
    def action_delta_indices(self) -> None:
        return None

    @property
    def reward_delta_indices(self) -> None:
        return None

    def get_optimizer_preset(self):
        raise NotImplementedError(NOT_TRAINED)

    def get_scheduler_preset(self) -> None:
        return None
