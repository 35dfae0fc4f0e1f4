import threading
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils import EzPickle
from numpy.testing import assert_array_equal
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import hyperrl.training.checkpoint as checkpoint_module
from hyperrl import train
from hyperrl.training import Run
from hyperrl.training.checkpoint import read
from hyperrl.utils.records import read as read_record
from tests.training.test_training import Interrupt

ON_POLICY = """
algorithm = "PPO"
policy = "hyper"
n_envs = 4
normalize_reward = true
[hyperparameters]
n_steps = 16
batch_size = 32
n_epochs = 2
"""
OFF_POLICY = """
algorithm = "SAC"
policy = "hyper"
n_envs = 4
[hyperparameters]
learning_starts = 16
train_freq = 4
batch_size = 16
buffer_size = 400
"""
SMALL = "[policy_kwargs]\nnet_arch = [8, 8]\n"


class Walk(gym.Env[np.ndarray, np.ndarray]):
    """A walk on a line whose slope varies, for as long as the episode lasts."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (1,))
        self.action_space = spaces.Box(-1, 1, (1,))
        self.slope = 0.0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-1, 1)
        return np.array([self.x], dtype=np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.x += float(action[0]) + self.slope
        return np.array([self.x], dtype=np.float32), -abs(self.x), False, False, {}


class MadeAnew(Walk, EzPickle):
    """Unpickled, as Box2D's and MuJoCo's environments, by calling the constructor."""

    def __init__(self) -> None:
        EzPickle.__init__(self)
        Walk.__init__(self)


class Locked(Walk):
    """Cannot be pickled at all."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


for _cls in (Walk, MadeAnew, Locked):
    gym.register(f"checkpoint/{_cls.__name__}-v0", entry_point=_cls, max_episode_steps=30)


def family_of(cls: type, folder: Path) -> Path:
    path = folder / f"{cls.__name__.lower()}.toml"
    path.write_text(
        f'id = "checkpoint/{cls.__name__}Family-v0"\nbase = "checkpoint/{cls.__name__}-v0"\n'
        'plane = ["slope", "other"]\n'
        '[features]\nslope = {unit = "1", default = 0, train = [-0.5, 0.5], bounds = [-1, 1]}\n'
        'other = {unit = "1", default = 0, train = [-0.5, 0.5], bounds = [-1, 1]}\n'
        '[attributes]\nslope = "slope + 0 * other"\n'
    )
    return path


def write(folder: Path, recipe: str) -> Path:
    (folder / "mine.toml").write_text(recipe + SMALL)
    return folder / "mine.toml"


def assert_resumes_exactly(family: Any, agent: Path, out: Path, steps: int = 256, at: int = 130) -> BaseAlgorithm:
    """Check that a training that was interrupted ends as one that was not, and return that one."""
    arguments: Any = dict(steps=steps, seed=2, device="cpu", checkpoint_seconds=0)
    whole = train(family, agent, **arguments)
    with pytest.raises(KeyboardInterrupt):
        train(family, agent, out=out, callback=Interrupt(at=at), **arguments)
    np.random.seed(99)  # noqa: NPY002 (whatever the process did before)
    resumed = train(family, agent, out=out, resume=True, **arguments)
    assert_array_equal(resumed.policy.parameters_to_vector(), whole.policy.parameters_to_vector())
    return whole


@pytest.mark.parametrize("sample_freq", [-1, 4])
@pytest.mark.parametrize(
    "recipe",
    [ON_POLICY, ON_POLICY.replace("PPO", "A2C").replace("batch_size = 32\nn_epochs = 2\n", ""), OFF_POLICY],
    ids=["PPO", "A2C", "SAC"],
)
def test_gsde_resumes_exactly(recipe: str, sample_freq: int, tmp_path: Path) -> None:
    agent = write(tmp_path, f"{recipe}use_sde = true\nsde_sample_freq = {sample_freq}\n")
    assert_resumes_exactly("pendulum", agent, tmp_path / "x")


def test_what_mujoco_simulates_resumes_exactly(tmp_path: Path) -> None:
    assert_resumes_exactly("half_cheetah", write(tmp_path, ON_POLICY), tmp_path / "x")


@pytest.mark.parametrize("recipe", [ON_POLICY, OFF_POLICY], ids=["PPO", "SAC"])
@pytest.mark.parametrize("cls", [MadeAnew, Locked])
def test_environments_whose_state_no_checkpoint_keeps_begin_new_episodes(
    cls: type, recipe: str, tmp_path: Path
) -> None:
    family, agent = family_of(cls, tmp_path), write(tmp_path, recipe)
    arguments: Any = dict(steps=512, seed=2, device="cpu", checkpoint_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        train(family, agent, out=tmp_path / "x", callback=Interrupt(at=300), **arguments)
    met: list[tuple[np.ndarray, np.ndarray]] = []

    class Watch(BaseCallback):
        """Note what the first step says, and what the environments are."""

        def _on_step(self) -> bool:
            if not met:
                envs: Any = self.training_env.unwrapped
                slopes = [env.unwrapped.env.unwrapped.slope for env in envs.envs]
                met.append((self.locals["new_obs"]["context"][:, 0], np.array(slopes)))
            return True

    with pytest.warns(UserWarning, match=r"no checkpoint can keep the state .* from step \d+ with new episodes"):
        model = train(family, agent, out=tmp_path / "x", resume=True, callback=Watch(), **arguments)
    assert model.num_timesteps == 512
    np.testing.assert_allclose(*met[0], rtol=1e-6)  # the agent is given the context that the environment is in
    assert len(np.unique(met[0][0])) == 4
    (restart,) = Run.open(tmp_path / "x").record.restarts
    assert 200 < restart < 300


def test_a_plain_environment_keeps_its_state(tmp_path: Path) -> None:
    family, agent = family_of(Walk, tmp_path), write(tmp_path, ON_POLICY)
    assert_resumes_exactly(family, agent, tmp_path / "x", steps=512, at=300)
    assert Run.open(tmp_path / "x").record.restarts == ()


def test_a_checkpoint_that_cannot_be_written_ends_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_module, "write_bytes", full)
    arguments: Any = dict(steps=256, seed=2, device="cpu", checkpoint_seconds=0)
    with pytest.warns(UserWarning, match="no checkpoint could be written .* No space left on device"):
        train("pendulum", write(tmp_path, ON_POLICY), out=tmp_path / "x", **arguments)
    assert Run.open(tmp_path / "x").result.model.steps == 256


def test_curves_of_a_resumed_training_are_those_of_a_whole_one(tmp_path: Path) -> None:
    agent = write(tmp_path, ON_POLICY)
    arguments: Any = dict(steps=4096, seed=2, device="cpu", checkpoint_seconds=0)
    train("pendulum", agent, out=tmp_path / "whole", **arguments)
    with pytest.raises(KeyboardInterrupt):
        train("pendulum", agent, out=tmp_path / "x", callback=Interrupt(at=2500), **arguments)
    before = read(tmp_path / "x.partial" / "checkpoint").seconds
    train("pendulum", agent, out=tmp_path / "x", resume=True, **arguments)

    def curves(run: str) -> dict[str, dict[int, float]]:
        log = EventAccumulator(str(tmp_path / run), size_guidance={"scalars": 0}).Reload()
        tags = [tag for tag in log.Tags()["scalars"] if tag.startswith("hyper/")]
        return {tag: {event.step: event.value for event in log.Scalars(tag)} for tag in tags}

    whole = curves("whole")
    assert len(whole["hyper/embedding_grad_norm"]) == 3
    assert curves("x") == whole
    assert Run.open(tmp_path / "x").result.seconds >= round(before, 1) > 0


def test_of_a_replay_buffer_the_filled_part_is_written(tmp_path: Path) -> None:
    agent = write(tmp_path, OFF_POLICY.replace("buffer_size = 400", "buffer_size = 400_000"))
    arguments: Any = dict(steps=256, seed=2, device="cpu", checkpoint_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        train("pendulum", agent, out=tmp_path / "x", callback=Interrupt(at=130), **arguments)
    assert (tmp_path / "x.partial" / "checkpoint").stat().st_size < 1e6
    resumed: Any = train("pendulum", agent, out=tmp_path / "x", resume=True, **arguments)
    assert resumed.replay_buffer.observations["observation"].shape[0] == 100_000
    assert resumed.replay_buffer.pos == 64


def test_checkpoints_take_a_small_share_of_the_time(tmp_path: Path) -> None:
    written: list[Path] = []

    class Count(BaseCallback):
        def _on_step(self) -> bool:
            return True

    original = checkpoint_module.write_bytes

    def slow(path: Path, data: bytes) -> None:
        written.append(path)
        threading.Event().wait(0.2)
        original(path, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_module, "write_bytes", slow)
        train("pendulum", write(tmp_path, ON_POLICY), 2048, out=tmp_path / "x", device="cpu", checkpoint_seconds=1e-6)
    assert len(written) <= 2  # the next is due after twenty times 0.2 s
    assert read_record(type(Run.open(tmp_path / "x").record), tmp_path / "x" / "run.json").result is not None


@pytest.mark.parametrize("policy", ["hyper", "unaware"])
def test_what_a_memory_read_and_where_contexts_switch_resumes_exactly(policy: str, tmp_path: Path) -> None:
    recipe = ON_POLICY.replace('"PPO"', '"RecurrentPPO"').replace('"hyper"', f'"{policy}"')
    recipe = recipe.replace("n_envs = 4\n", "n_envs = 4\nobserve_last_step = true\nswitch = [3, 9]\n")
    agent = write(tmp_path, recipe)
    whole = assert_resumes_exactly("pendulum", agent, tmp_path / "x")
    for trust in (False, True):
        model = Run.open(tmp_path / "x").model("cpu", trust)
        assert_array_equal(model.policy.parameters_to_vector(), whole.policy.parameters_to_vector())
