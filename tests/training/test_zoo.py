"""RL Zoo trains hyperrl's policies on its families, from the command line and files of its own kind."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from outside import python
from stable_baselines3 import PPO, SAC

import hyperrl.policies
from hyperrl.policies import POLICY_OF, HyperPolicy
from hyperrl.training.recipe import agent_spec

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "docs" / "zoo"
ENV = "hyperrl/Pendulum-v0"
CONTEXT = hyperrl.load_family("pendulum").context_space
SIZES = {
    "ppo": ("n_envs:2", "n_steps:64", "batch_size:64"),
    "sac": ("n_envs:2", "learning_starts:40", "batch_size:32", "gradient_steps:1", "buffer_size:500"),
}
every_algorithm = pytest.mark.parametrize("algorithm", [PPO, SAC], ids=["ppo", "sac"])
needs_zoo = pytest.mark.skipif(
    find_spec("rl_zoo3") is None,
    reason="rl_zoo3 is not installed: pip install '.[zoo]'",
)


def zoo(tmp_path: Path, module: str, algorithm: Any, *arguments: object) -> str:
    """Run a command of RL Zoo in an empty folder and return what it printed."""
    command = ("-m", f"rl_zoo3.{module}", "--algo", algorithm.__name__.lower(), "--env", ENV)
    common = ("--gym-packages", "hyperrl", "-f", "logs", "--num-threads", 1, "--device", "cpu", "--seed", 0)
    return python(tmp_path, *command, *common, *arguments)


def config(algorithm: Any) -> tuple[object, ...]:
    name = algorithm.__name__.lower()
    return "--conf-file", CONFIGS / f"{name}.yml", "-params", *SIZES[name]


@every_algorithm
def test_a_file_for_the_zoo_says_what_the_recipe_says(algorithm: Any) -> None:
    name = algorithm.__name__.lower()
    said = yaml.safe_load((CONFIGS / f"{name}.yml").read_text())[ENV]
    recipe = agent_spec(f"hyper-{name}").definition
    assert said.pop("policy") == f"hyperrl.policies.{POLICY_OF[algorithm.__name__]}"
    assert said.pop("callback") == "hyperrl.training.HyperDiagnostics"
    assert said.pop("n_timesteps") == 500_000
    normalize = dict(normalize=dict(norm_obs=False, norm_reward=True)) if recipe.normalize_reward else {}
    expected = recipe.hyperparameters | normalize
    assert said == expected | dict(n_envs=recipe.n_envs, policy_kwargs=recipe.policy_kwargs)


@needs_zoo
@pytest.mark.parametrize("algorithm", [PPO, pytest.param(SAC, marks=pytest.mark.slow)], ids=["ppo", "sac"])
def test_it_trains_continues_and_plays(algorithm: Any, tmp_path: Path) -> None:
    evaluation = ("--eval-freq", 200, "--eval-episodes", 1)
    zoo(tmp_path, "train", algorithm, *config(algorithm), "-n", 300, *evaluation)
    runs = tmp_path / "logs" / algorithm.__name__.lower()
    first = algorithm.load(runs / "hyperrl-Pendulum-v0_1" / "hyperrl-Pendulum-v0.zip", device="cpu")
    assert type(first.policy) is getattr(hyperrl.policies, POLICY_OF[algorithm.__name__])
    assert first.policy.context_space == CONTEXT
    assert first.policy.hyper_config.rank == 8
    assert first.num_timesteps >= 300
    again = ("-i", runs / "hyperrl-Pendulum-v0_1" / "hyperrl-Pendulum-v0.zip", "-n", 200, "--eval-freq", -1)
    zoo(tmp_path, "train", algorithm, *config(algorithm), *again)
    second = algorithm.load(runs / "hyperrl-Pendulum-v0_2" / "hyperrl-Pendulum-v0.zip", device="cpu")
    assert type(second.policy) is type(first.policy)
    assert "2 Episodes" in zoo(tmp_path, "enjoy", algorithm, "-n", 401, "--no-render", "--load-best", "--exp-id", 1)


@needs_zoo
@pytest.mark.slow
def test_its_search_leaves_policy_kwargs_out_and_the_policy_finds_the_context(tmp_path: Path) -> None:
    search = ("-optimize", "--n-trials", 1, "--n-evaluations", 1, "--no-optim-plots", "--optimization-log-path", "best")
    zoo(tmp_path, "train", PPO, *config(PPO), "-n", 300, "--eval-episodes", 1, *search)
    (best,) = tmp_path.glob("best/*/best_model.zip")
    policy = PPO.load(best, device="cpu").policy
    assert isinstance(policy, HyperPolicy)
    assert policy.context_space == CONTEXT
    assert policy.hyper_config.rank is None  # the file says 8
