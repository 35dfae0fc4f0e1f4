"""Training: a recipe run on a family, with Stable-Baselines3."""

from __future__ import annotations

import inspect
import io
import pickle
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from hyperrl.algorithms import algorithm_class, policy_class
from hyperrl.callbacks import HyperDiagnostics
from hyperrl.catalog import AgentSpec, agent_spec
from hyperrl.contexts import check_seed, nearest
from hyperrl.devices import find_device
from hyperrl.families import Family, load_family, stream
from hyperrl.files import write_bytes
from hyperrl.provenance import n_parameters
from hyperrl.runs import NORMALIZER, UnfinishedRun


def train(
    family: str | Path | Family,
    agent: str | Path,
    steps: int = 500_000,
    seed: int = 0,
    out: str | Path | None = None,
    *,
    contexts: int | ArrayLike | None = None,
    resume: bool = False,
    device: str = "auto",
    callback: BaseCallback | None = None,
    progress: bool = False,
    checkpoint_seconds: float = 30.0,
) -> BaseAlgorithm:
    """Train an agent on a family and return its Stable-Baselines3 model.

    :param family: a family, its name or the path of its ``.toml`` file.
    :param agent: the name of a recipe or the path of its ``.toml`` file.
    :param steps: environment steps, rounded up to whole rollouts.
    :param seed: the same seed gives the same model, on the same machine.
    :param out: the run folder to write; it must not exist. ``None`` writes nothing.
    :param contexts: train on a fixed set of that many contexts, or on those of an array ``(n, d)``; ``None`` draws a
        fresh one for each episode.
    :param resume: continue an interrupted training of ``out`` from its last checkpoint, exactly as if it had not
        been interrupted; where there is none, begin.
    :param device: where the networks are: ``"cpu"``, ``"cuda"``, ``"auto"``.
    :param callback: a Stable-Baselines3 callback of your own.
    :param progress: show a progress bar.
    :param checkpoint_seconds: the least time between two checkpoints.
    :raises ValueError: for a faulty recipe, and for a run folder that exists.

    >>> model = train("pendulum", "hyper-ppo", steps=1, seed=0, device="cpu")
    >>> model.policy.context_space.names
    ('gravity', 'mass', 'length', 'torque_gain')
    """
    family = family if isinstance(family, Family) else load_family(family)
    spec = agent_spec(agent)
    if steps < 1:
        raise ValueError(f"expected at least one step, got steps={steps}")
    model = build(family, spec, seed, contexts, device)
    callbacks: list[BaseCallback] = [HyperDiagnostics()]
    if callback is not None:
        callbacks.append(callback)
    if out is None:
        return model.learn(steps, callback=callbacks, progress_bar=progress)
    fixed = contexts if contexts is None or isinstance(contexts, int) else np.asarray(contexts).tolist()
    settings = dict(seed=seed, steps=steps, contexts=fixed, irrelevant=family.irrelevant)
    run = UnfinishedRun(out, family, spec, settings, resume)
    if run.checkpoint.exists():
        model = _restore(type(model), run.checkpoint, model.device)
    callbacks.append(_Checkpoint(run.checkpoint, checkpoint_seconds))
    model.set_logger(Logger(str(run.path), [TensorBoardOutputFormat(str(run.path))]))
    begun = time.monotonic()
    try:
        remaining = steps - model.num_timesteps
        if remaining > 0:
            model.learn(remaining, callback=callbacks, progress_bar=progress, reset_num_timesteps=False)
    except BaseException:
        if not run.checkpoint.exists():
            run.discard()
        raise
    finally:
        model.logger.close()
    model.save(run.path / "model.zip")
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        normalizer.save(str(run.path / NORMALIZER))
    run.finish(
        parameters=n_parameters(model.policy),
        steps_trained=model.num_timesteps,
        seconds=round(time.monotonic() - begun, 1),
        device=str(model.device),
    )
    return model


def build(
    family: Family, agent: AgentSpec, seed: int = 0, contexts: int | ArrayLike | None = None, device: str = "auto"
) -> BaseAlgorithm:
    """Make the untrained model of a recipe on a family.

    :raises ValueError: for a negative seed and a device that is not there, and where the recipe names an unknown
        algorithm, policy or hyperparameter, or an algorithm that does not serve the family's actions.
    """
    definition = agent.definition
    check_seed(seed)
    place = find_device(device)
    try:
        algorithm = algorithm_class(definition.algorithm)
        policy, policy_kwargs = policy_class(definition.policy, definition.algorithm)
        valid = [
            name for name in inspect.signature(algorithm).parameters if name not in ("policy", "env", "policy_kwargs")
        ]
        for name in definition.hyperparameters:
            if name not in valid:
                raise ValueError(f"unknown hyperparameter {name!r}: the names are {valid}.{nearest(name, valid)}")
        policy_kwargs |= definition.policy_kwargs
        if definition.match_parameters is not None:
            reference = build(family, agent_spec(definition.match_parameters), device="cpu")
            policy_kwargs |= matched_width(policy, reference, policy_kwargs)
        hyperparameters = dict(definition.hyperparameters)
        if "learning_rate" in hyperparameters:
            hyperparameters["learning_rate"] = _schedule(hyperparameters["learning_rate"])
        vec_env: VecEnv = family.vec_env(definition.n_envs, contexts=contexts, seed=seed)
        if definition.normalize_reward:
            vec_env = VecNormalize(vec_env, norm_obs=False, gamma=hyperparameters.get("gamma", 0.99))
        if "action_noise" in hyperparameters:
            hyperparameters["action_noise"] = _noise(hyperparameters["action_noise"], vec_env)
        model: BaseAlgorithm = algorithm(
            policy, vec_env, policy_kwargs=policy_kwargs, seed=seed, device=place, **hyperparameters
        )
    except (ValueError, AssertionError) as error:  # SB3 asserts that an algorithm serves the family's actions
        raise ValueError(f"{agent.source}: {error}") from None
    vec_env.seed(stream(seed))  # SB3 seeded it with the bare seed
    return model


def matched_width(policy: type[BasePolicy], reference: BaseAlgorithm, policy_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Find the width that gives a policy as many parameters as a reference model has.

    :return: ``net_arch`` of two hidden layers, or ``lstm_hidden_size`` where the policy has a memory.
    """
    wanted = n_parameters(reference.policy)
    has_memory = "lstm_hidden_size" in inspect.signature(policy).parameters
    # Orthogonal initialisation takes its time, and counting needs none.
    uninitialised = dict(ortho_init=False) if issubclass(policy, ActorCriticPolicy) else {}

    def sized(width: int) -> dict[str, Any]:
        return dict(lstm_hidden_size=width) if has_memory else dict(net_arch=[width, width])

    def count(width: int) -> int:
        kwargs: dict[str, Any] = policy_kwargs | uninitialised | sized(width)
        made = policy(reference.observation_space, reference.action_space, lambda _: 0.0, **kwargs)
        return n_parameters(made)

    low, high = 1, 2
    while count(high) < wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if count(middle) >= wanted else (middle, high)
    return sized(min((low, high), key=lambda w: abs(count(w) - wanted)))


class _Checkpoint(BaseCallback):
    """Write, between two updates, everything that the rest of the training depends on, to one file."""

    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__()
        self.path = path
        self.seconds = seconds
        self.written = time.monotonic()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if time.monotonic() - self.written < self.seconds or self.num_timesteps == 0:
            return
        buffer = io.BytesIO()
        self.model.save(buffer)
        normalizer = self.model.get_vec_normalize_env()
        state = {
            "model": buffer.getvalue(),
            "vec_env": self.training_env.unwrapped,
            "normalizer": None if normalizer is None else (normalizer, normalizer.returns),  # it pickles without them
            "torch": torch.get_rng_state(),
            "numpy": np.random.get_state(),  # noqa: NPY002 (SB3 shuffles minibatches with the global generator)
            "python": random.getstate(),
            "actions": self.model.action_space,  # SB3 explores by its generator
            "memory": getattr(self.model, "_last_lstm_states", None),  # of RecurrentPPO, which forgets it when loaded
        }
        if isinstance(self.model, OffPolicyAlgorithm):
            state["replay_buffer"] = self.model.replay_buffer
        write_bytes(self.path, pickle.dumps(state))
        self.written = time.monotonic()


def _restore(algorithm: type[BaseAlgorithm], path: Path, device: torch.device) -> BaseAlgorithm:
    """Read a checkpoint: the model, its environments in mid-episode, and the generators of random numbers."""
    state = pickle.loads(path.read_bytes())
    vec_env = state["vec_env"]
    if state["normalizer"] is not None:
        normalizer, returns = state["normalizer"]
        normalizer.set_venv(vec_env)
        normalizer.returns = returns
        vec_env = normalizer
    model = algorithm.load(io.BytesIO(state["model"]), env=vec_env, device=device, force_reset=False)
    model.action_space = state["actions"]
    if state["memory"] is not None:
        setattr(model, "_last_lstm_states", state["memory"])  # noqa: B010 (only RecurrentPPO has it)
    if isinstance(model, OffPolicyAlgorithm):
        model.replay_buffer = state["replay_buffer"]
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    random.setstate(state["python"])
    return model


def _schedule(learning_rate: float | str) -> float | Schedule:
    """Read a learning rate as RL Zoo writes it: a number, or ``"lin_1e-3"`` for one that falls linearly to zero."""
    if isinstance(learning_rate, str):
        kind, _, initial = learning_rate.partition("_")
        try:
            if kind == "lin":
                return LinearSchedule(float(initial), 0.0, 1.0)
        except ValueError:
            pass
        raise ValueError(
            f"learning_rate must be a number, or such as 'lin_1e-3' to fall linearly, got {learning_rate!r}"
        )
    return learning_rate


def _noise(std: float, vec_env: VecEnv) -> NormalActionNoise:
    """Make the exploration noise of TD3 and DDPG from its standard deviation, actions being scaled to [-1, 1]."""
    if not isinstance(std, int | float) or std < 0:
        raise ValueError(f"action_noise must be a standard deviation, got {std!r}")
    shape = vec_env.action_space.shape or ()
    return NormalActionNoise(np.zeros(shape), np.full(shape, float(std)))
