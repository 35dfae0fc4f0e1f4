"""Learning in one environment: a stock Stable-Baselines3 agent, from generated weights or from scratch."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from sb3_contrib import TRPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecMonitor, VecNormalize
from torch.optim import Optimizer

from hyperrl.adaptation.environment import AdaptationEnv, adaptation_stream
from hyperrl.adaptation.methods import LEARNING
from hyperrl.contexts import Vector
from hyperrl.export.specialization import specialize
from hyperrl.rollouts.agent import has_memory
from hyperrl.utils.errors import nearest


def learner(
    environment: AdaptationEnv, context: Vector, hyperparameters: Mapping[str, Any] | None = None, fresh: bool = False
) -> BaseAlgorithm:
    """Make the plain Stable-Baselines3 agent that learns in a environment's environment.

    Hyperparameters are the model's, and schedules stay at their beginning, where those of a finished training are at
    their end. Statistics of the ``VecNormalize`` that the model was trained in are applied, and stay as they are.

    :param environment: environment and model.
    :param context: where the weights come from, shape ``(d,)``.
    :param hyperparameters: those to change, by the names of the algorithm's constructor.
    :param fresh: begin with random weights instead, as the algorithm itself would. Otherwise an off-policy algorithm
        leaves out its random beginning, which is for agents that know nothing.
    :raises ValueError: for an unknown hyperparameter, and for a model that cannot be specialised, as one with a memory.
    """
    model = environment.model
    if has_memory(model):
        raise ValueError(
            f"methods {list(LEARNING)} are for agents without memory: no plain agent acts as a "
            f"{type(model).__name__} does"
        )
    env: VecEnv = environment.env if environment.env.env_is_wrapped(Monitor)[0] else VecMonitor(environment.env)
    plain = specialize(model, context, env=_normalized(env, model.get_vec_normalize_env(), environment.other_key))
    state = copy.deepcopy(plain.policy.state_dict())
    variables = {name: copy.deepcopy(getattr(plain, name, None)) for name in plain._get_torch_save_params()[1]}
    changes = dict(hyperparameters or {})
    valid = [name for name in inspect.signature(type(model)).parameters if name not in _FIXED]
    for name in changes:
        if name not in valid:
            raise ValueError(f"unknown hyperparameter {name!r}: the names are {valid}.{nearest(name, valid)}")
    if not fresh and isinstance(plain, OffPolicyAlgorithm):
        changes = dict(learning_starts=0) | changes
        if hasattr(plain, "exploration_final_eps"):
            changes = dict(exploration_initial_eps=getattr(plain, "exploration_final_eps")) | changes  # noqa: B009
    for name, value in (dict(learning_rate=model.lr_schedule(1.0)) | changes).items():
        setattr(plain, name, value)
    plain.seed = environment.seed
    plain.tensorboard_log = None
    plain._setup_model()
    if not fresh:
        plain.policy.load_state_dict(state)
        for name, value in variables.items():  # SAC's entropy coefficient
            if value is not None:
                getattr(plain, name).data.copy_(value.data)
    plain.set_logger(Logger(None, []))
    return plain


def learn(
    plain: BaseAlgorithm, seed: int, episodes: int, after_episode: Callable[[int, float, int], None], proximal: float
) -> None:
    """Learn for some episodes.

    :param plain: the agent, from :func:`learner`.
    :param seed: seed of the environment's initial states.
    :param episodes: how many.
    :param after_episode: called with the episode's number from 1, its return, and its steps, after the update that it
        may have led to.
    :param proximal: weight of the pull towards the weights as they are now; see :func:`pull_to_anchor`.
    """
    env = plain.get_env()
    assert env is not None  # learner() gave it one
    env.seed(adaptation_stream(seed))
    hooks = pull_to_anchor(plain, proximal) if proximal else []
    try:
        plain.learn(10**9, callback=_Episodes(episodes, after_episode))  # the callback says when it is enough
    finally:
        for hook in hooks:
            hook.remove()


def pull_to_anchor(model: BaseAlgorithm, weight: float) -> list[Any]:
    """Pull weights back to what they are now, after each step of an optimiser; return the hooks, to be removed.

    The step minimises weight/2·‖θ − anchor‖² + ‖θ − θ'‖²/(2·learning rate), θ' being what the optimiser has made of
    the weights: the proximal step of that penalty (Parikh and Boyd 2014), decoupled from the optimiser as AdamW's
    decay is. Infinite weight leaves the weights as they are.

    :raises ValueError: for a negative weight, and for TRPO, whose actor no optimiser steps.
    """
    if not weight >= 0:
        raise ValueError(f"expected a proximal weight of 0 or more, got {weight}")
    if isinstance(model, TRPO):
        raise ValueError("TRPO has a trust region and no optimiser for its actor: use proximal=0")
    optimizers = [o for m in model.policy.modules() if isinstance(o := getattr(m, "optimizer", None), Optimizer)]
    hooks = []
    for optimizer in optimizers:
        anchors = [[p.detach().clone() for p in group["params"]] for group in optimizer.param_groups]

        @torch.no_grad()
        def pull(optimizer: Optimizer, *_: Any, anchors: list[list[torch.Tensor]] = anchors) -> None:
            for group, of_group in zip(optimizer.param_groups, anchors, strict=True):
                if group["lr"] > 0:
                    share = 1 - 1 / (1 + weight * group["lr"])
                    for parameter, anchor in zip(group["params"], of_group, strict=True):
                        parameter.lerp_(anchor, share)

        hooks.append(optimizer.register_step_post_hook(pull))
    return hooks


class _Episodes(BaseCallback):
    """Report each episode once the agent has made of it what it would, and stop after the last."""

    def __init__(self, episodes: int, report: Callable[[int, float, int], None]) -> None:
        super().__init__()
        self.episodes = episodes
        self.report = report
        self.done = 0
        self.pending: dict[str, Any] | None = None

    def _on_step(self) -> bool:
        # The update that follows an episode's end, if one does, comes after this method and before its next call.
        if self.pending is not None:
            self.report(self.done, self.pending["r"], self.pending["l"])
            self.pending = None
        if self.done == self.episodes:
            return False
        info = self.locals["infos"][0]
        if "episode" in info:
            self.done += 1
            self.pending = info["episode"]
        return True


_FIXED = ("policy", "env", "policy_kwargs", "tensorboard_log", "seed", "device", "_init_setup_model")


def _normalized(env: VecEnv, old: VecNormalize | None, other_key: str | None) -> VecEnv:
    """Normalise as the model's environments were, for an agent that observes no context."""
    if old is None:
        return env
    names = ("norm_obs", "norm_reward", "clip_obs", "clip_reward", "gamma", "epsilon")
    settings: dict[str, Any] = {name: getattr(old, name) for name in names}
    new = VecNormalize(env, training=False, norm_obs_keys=old.norm_obs_keys if other_key is None else None, **settings)
    if old.norm_obs:
        new.obs_rms = copy.deepcopy(old.obs_rms if other_key is None else old.obs_rms[other_key])  # pyright: ignore[reportIndexIssue]
    new.ret_rms = copy.deepcopy(old.ret_rms)
    return new
