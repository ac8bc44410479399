"""Drives a bundle by the real LeRobot; run it with the Python of an environment that has lerobot and this package.

    python peer.py BUNDLE DEMONSTRATION FOLDER

`lerobot-eval` finds the policy by its name, adapts, and runs it in a Gymnasium environment whose success needs the
right actions; the policy is saved and evaluated again from its folder.
"""

import json
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import gymnasium
import numpy as np
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.scripts.lerobot_eval import main as lerobot_eval
from lerobot.utils.import_utils import register_third_party_plugins

import quickstudy_runtime as runtime

bundle, demonstration, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
EXPECTED = runtime.load(bundle).adapt([demonstration])


class Mirror(gymnasium.Env):
    """Succeeds where every action is what the runtime alone does for the same observation."""

    metadata = {"render_fps": 20, "render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space = gymnasium.spaces.Dict({"agent_pos": gymnasium.spaces.Box(-1, 1, (3,), np.float64)})
    action_space = gymnasium.spaces.Box(-2, 2, (2,), np.float32)
    _max_episode_steps = 10
    task_description = task = "mirror"

    def __init__(self, **_):
        self.render_mode = "rgb_array"

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._skill, self._steps, self._right = EXPECTED.copy(), 0, True
        return self._seen(), {"is_success": False}

    def _seen(self):
        self._x = self.np_random.uniform([-1, -1, 0], 1).astype(np.float32).astype(np.float64)
        return {"agent_pos": self._x}

    def step(self, action):
        self._right &= bool(np.allclose(action, self._skill.act(self._x), atol=1e-5))
        self._steps += 1
        return self._seen(), 0.0, self._steps == 10, False, {"is_success": self._right and self._steps == 10}

    def render(self):
        return np.zeros((64, 64, 3), np.uint8)


gymnasium.register("gym_mirror/Mirror-v0", Mirror, max_episode_steps=10)


@EnvConfig.register_subclass("mirror")
@dataclass
class MirrorConfig(EnvConfig):
    task: str | None = "Mirror-v0"
    fps: int = 20
    features: dict[str, PolicyFeature] = field(
        default_factory=lambda: {
            "action": PolicyFeature(FeatureType.ACTION, (2,)),
            "agent_pos": PolicyFeature(FeatureType.STATE, (3,)),
        }
    )
    features_map: dict[str, str] = field(default_factory=lambda: {"action": "action", "agent_pos": "observation.state"})

    @property
    def gym_kwargs(self):
        return {}


def evaluate(name, *words):
    sys.argv = ["lerobot-eval", *words, "--env.type=mirror", "--eval.n_episodes=6", "--eval.batch_size=3",
                "--eval.use_async_envs=false", f"--output_dir={folder / name}"]  # fmt: skip
    lerobot_eval()
    info = json.loads((folder / name / "eval_info.json").read_text())
    return info["overall"]["pc_success"]


plain = ["--policy.type=quickstudy", f"--policy.bundle={bundle}", f"--policy.demonstrations=[{demonstration}]"]
by_type = evaluate("type", *plain)
untaught = evaluate("untaught", *plain[:2])
register_third_party_plugins()
from lerobot.policies.factory import get_policy_class, make_policy_config  # noqa: E402

policy = get_policy_class("quickstudy")(
    make_policy_config("quickstudy", bundle=bundle, demonstrations=[demonstration], device="cpu")
)
policy.save_pretrained(folder / "saved")
by_path = evaluate("path", f"--policy.path={folder / 'saved'}")
print(json.dumps({"lerobot": version("lerobot"), "type": by_type, "untaught": untaught, "path": by_path}))
