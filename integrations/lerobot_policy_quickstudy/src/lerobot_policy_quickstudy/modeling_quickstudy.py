"""The policy: one skill for every environment or robot of the batch."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import OBS_ENV_STATE, OBS_STATE
from torch import Tensor

import quickstudy_runtime as runtime
from lerobot_policy_quickstudy.configuration_quickstudy import NOT_TRAINED, QuickstudyConfig
from lerobot_policy_quickstudy.processor_quickstudy import make_quickstudy_pre_post_processors

BUNDLE, SKILL = "bundle.quickstudy", "skill.safetensors"
"""Names of what a saved policy's folder holds beside LeRobot's config.json."""


class QuickstudyPolicy(PreTrainedPolicy):
    """Acts with a skill of a bundle.

    Args:
        dataset_meta: of LeRobot, where it records or replays: the names of its channels.

    Raises:
        quickstudy_runtime.QuickstudyError: no bundle, one that is damaged or learns by trial, demonstrations that
            cannot be used.
    """

    config_class = QuickstudyConfig
    name = "quickstudy"

    def __init__(self, config: QuickstudyConfig, *_: Any, dataset_meta: Any = None, **__: Any) -> None:
        super().__init__(config)
        if not config.bundle:
            raise runtime.InputError("Say which bundle: --policy.bundle=FILE, what 'quickstudy export' wrote.")
        guard = runtime.Guard(config.on_bad, config.rest, config.margin, slew=config.slew)
        self._robot = runtime.load(config.bundle, guard)
        if self._robot.by_trial:
            raise runtime.InputError(
                f"'{self._robot.bundle.method}' learns by its rewards, which LeRobot does not give to a policy."
            )
        if config.skill:
            self._taught = self._robot.load_skill(config.skill)
        elif config.demonstrations:
            self._taught = self._robot.adapt(config.demonstrations)
        else:
            self._taught = self._robot.begin()
        self._names = _names(dataset_meta, self._robot.bundle.observation.names)
        self._robot.warm_up()
        self.reset()

    def reset(self) -> None:
        """A new episode for every environment."""
        self._skills: list[runtime.Skill] = []

    @torch.no_grad()
    def select_action(self, batch: dict[str, Tensor], **_: Any) -> Tensor:
        """Actions [robot, act] for a batch with 'observation.state' [robot, ...], in the batch's own kind of tensor."""
        state = batch[OBS_STATE] if OBS_STATE in batch else batch[OBS_ENV_STATE]
        rows = state.cpu().double().numpy()
        if OBS_STATE in batch and OBS_ENV_STATE in batch and rows.shape[-1] != len(self._robot.bundle.observation):
            rows = np.concatenate([rows, batch[OBS_ENV_STATE].cpu().double().numpy()], -1)
        if len(self._skills) != len(rows):
            self._skills = [self._taught.copy() for _ in rows]
        given = rows if self._names is None else [dict(zip(self._names, row, strict=True)) for row in rows]
        actions = [skill.act(one) for skill, one in zip(self._skills, given, strict=True)]
        return torch.as_tensor(np.stack(actions), dtype=torch.float32, device=state.device)

    def predict_action_chunk(self, batch: dict[str, Tensor], **_: Any) -> Tensor:
        """[robot, 1, act]."""
        return self.select_action(batch)[:, None]

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict | None]:
        raise NotImplementedError(NOT_TRAINED)

    def get_optim_params(self) -> dict:
        raise NotImplementedError(NOT_TRAINED)

    def _save_pretrained(self, save_directory: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        shutil.copyfile(self.config.bundle, save_directory / BUNDLE)
        self._taught.save(save_directory / SKILL)
        kept = self.config.bundle, self.config.demonstrations, self.config.skill
        self.config.bundle, self.config.demonstrations, self.config.skill = BUNDLE, [], SKILL
        try:
            self.config._save_pretrained(save_directory)
            for processor in make_quickstudy_pre_post_processors(self.config):
                processor.save_pretrained(save_directory)
        finally:
            self.config.bundle, self.config.demonstrations, self.config.skill = kept

    @classmethod
    def from_pretrained(
        cls, pretrained_name_or_path: str | Path, *, config: QuickstudyConfig | None = None, **kwargs: Any
    ) -> "QuickstudyPolicy":
        """A policy from its folder.

        Raises:
            quickstudy_runtime.QuickstudyError: it is no folder with a bundle; the hub is not asked.
        """
        folder = Path(pretrained_name_or_path)
        if not (folder / BUNDLE).is_file():
            raise runtime.BundleError(f"'{folder}' holds no {BUNDLE}; download a policy of the hub as a folder first.")
        config = config or QuickstudyConfig.from_pretrained(folder)
        config.bundle = str(folder / BUNDLE)
        if config.skill == SKILL:
            config.skill = None if config.demonstrations else str(folder / SKILL)
        kwargs = {key: value for key, value in kwargs.items() if key == "dataset_meta"}
        return cls(config, **kwargs).eval()


def _names(dataset_meta: Any, wanted: tuple[str, ...]) -> list[str] | None:
    """The names of a data set's state, where the bundle's channels are among them."""
    features = getattr(dataset_meta, "features", None) or {}
    names = [name for key in (OBS_STATE, OBS_ENV_STATE) for name in features.get(key, {}).get("names") or ()]
    return names if names and set(wanted) <= set(names) and len(set(names)) == len(names) else None
