"""Proximal policy optimisation on tensors, from the environments to the optimiser."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, final

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import explained_variance
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from hyperrl.device.acting import Acting
from hyperrl.device.buffer import TensorRolloutBuffer
from hyperrl.device.gaussian import Gaussian
from hyperrl.device.minibatch import Measures, Settings, Switches, gradient, learnt_parameters
from hyperrl.device.statistics import Normalizer
from hyperrl.device.tape import NotStaticError, Tape
from hyperrl.hypernet import SecantExtrapolation, inside_range, static
from hyperrl.policies import HyperPolicy
from hyperrl.policies.tracing import unvalidated
from hyperrl.simulation import find_tensor_env, has_tensors
from hyperrl.simulation.arrays import ended_infos
from hyperrl.simulation.simulator import Observation


@final
class DevicePPO(PPO):
    """Stable-Baselines3's ``PPO``, whose environments, rollouts, normalisation and updates are tensors on one device.

    Arguments, callbacks, logger, schedules and zips are those of ``PPO``: each loads the other's zips, and the same
    seed gives the same training but for rounding. It does so in batched environments of a family, or others with the
    tensor interface (docs/device.md), alone or in a ``VecNormalize``, whose statistics are up to date after each
    rollout. In all others, and with a rollout buffer of yours, it trains as ``PPO`` does.

    A minibatch's operations are recorded once and replayed in the same memory: on the CPU by a
    :class:`~hyperrl.device.tape.Tape`. A policy of another package, whose Python code may do more than tensors show, is
    not recorded.

    >>> from hyperrl import HyperPolicy, load_family
    >>> model = DevicePPO(HyperPolicy, load_family("pendulum").vec_env(16), n_steps=32, batch_size=256, device="cpu")
    >>> model.learn(1024).num_timesteps
    1024
    """

    def _setup_model(self) -> None:
        is_default = self.rollout_buffer_class in (None, RolloutBuffer, DictRolloutBuffer)  # the latter two of zips
        if is_default and self.env is not None and has_tensors(self.env):
            self.rollout_buffer_class = TensorRolloutBuffer
        super()._setup_model()
        if type(self.policy.action_dist) is DiagGaussianDistribution:
            self.policy.action_dist = Gaussian(self.policy.action_dist.action_dim)
        self._tapes: dict[Any, _Update] = {}
        self._recorded_acting: tuple[tuple[int, ...], Acting] | None = None
        self._is_recorded = _is_static(self.policy)

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Set the environments to train in; see Stable-Baselines3."""
        super().set_env(env, force_reset)
        assert self.env is not None
        fitting: Any = TensorRolloutBuffer if has_tensors(self.env) else DictRolloutBuffer
        if {type(self.rollout_buffer), fitting} == {TensorRolloutBuffer, DictRolloutBuffer}:
            self.rollout_buffer_class = fitting
            self.rollout_buffer = fitting(
                self.n_steps,
                self.observation_space,
                self.action_space,
                self.device,
                self.gae_lambda,
                self.gamma,
                self.n_envs,
            )
            self._tapes, self._recorded_acting = {}, None

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "rollout_buffer_class", "_tapes", "_recorded_acting", "_is_recorded"]

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
    ) -> bool:
        """Fill the buffer; see Stable-Baselines3, whose callbacks find the same local variables here."""
        if not isinstance(rollout_buffer, TensorRolloutBuffer):
            return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)
        assert isinstance(self._last_obs, dict)
        tensor_env, source = find_tensor_env(env)
        normalizer = None if source is None else Normalizer(source, self.device)
        observation = {key: torch.as_tensor(entry, device=self.device) for key, entry in self._last_obs.items()}
        starts = torch.as_tensor(self._last_episode_starts, device=self.device)
        self.policy.set_training_mode(False)
        rollout_buffer.reset()
        if self.use_sde:
            self.policy.reset_noise(env.num_envs)
        callback.on_rollout_start()
        act = self._acting(observation)
        has_new_contexts = True
        for n_steps in range(n_rollout_steps):
            if self.use_sde and self.sde_sample_freq > 0 and n_steps % self.sde_sample_freq == 0:
                self.policy.reset_noise(env.num_envs)
            with torch.no_grad(), unvalidated():
                sampled, applied, values, log_probs = act(observation, has_new_contexts)
                step = tensor_env.step_tensors(applied)
                step = step if normalizer is None else normalizer(step)
                rollout_buffer.add(observation, sampled, values, log_probs, step)
            self.num_timesteps += env.num_envs
            ended = ended_infos(step, time.time() - self.start_time / 1e9)
            infos: list[dict[str, Any]] = [ended.get(i, {}) for i in range(env.num_envs)]
            has_new_contexts = bool(ended) or bool(step.switched.any())
            # What callbacks look for.
            obs_tensor, actions, clipped_actions = observation, sampled.cpu().numpy(), applied.cpu().numpy()
            new_obs = {key: entry.cpu().numpy() for key, entry in step.observation.items()}
            rewards, dones = step.reward.float().cpu().numpy(), step.ended.cpu().numpy()
            callback.update_locals(locals())
            if not callback.on_step():
                self._leave(step.observation, step.ended, normalizer)
                return False
            self._update_info_buffer([*ended.values()], np.ones(len(ended), dtype=bool))
            observation = step.observation
        with torch.no_grad(), unvalidated():
            cut, last = rollout_buffer.cut_short()
            if len(cut):
                rollout_buffer.bootstrap(self.policy.predict_values(last).flatten(), cut)
            rollout_buffer.finish(starts, self.policy.predict_values(observation))
        self._leave(observation, rollout_buffer.flags["ended"][-1], normalizer)
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _leave(self, observation: Observation, starts: Tensor, normalizer: Normalizer | None) -> None:
        """Note where the environments are, in what goes into zips and checkpoints."""
        self._last_obs = {key: entry.cpu().numpy() for key, entry in observation.items()}
        self._last_episode_starts = starts.cpu().numpy().copy()  # the buffer's memory serves again
        if normalizer is not None:
            normalizer.export()

    def train(self) -> None:
        """Update the policy; see Stable-Baselines3."""
        buffer = self.rollout_buffer
        if not self._is_recorded or not isinstance(buffer, TensorRolloutBuffer):
            super().train()
            return
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        with unvalidated():
            try:
                kls, measures = self._epochs(buffer)
            except NotStaticError:
                self._is_recorded = False
                super().train()
                return
        self._log(kls, measures)

    def _epochs(self, buffer: TensorRolloutBuffer) -> tuple[list[float], Tensor]:
        """Update from minibatches, in Stable-Baselines3's order, until the divergence is too large.

        :return: the divergence of each minibatch of the last epoch, and all measures, shape ``(minibatches, 5)``.
        """
        table = buffer.tabulate() if isinstance(self.policy, HyperPolicy) else None
        is_watched = any(module._forward_hooks for module in self.policy.modules())
        settings, switches = self._settings()
        switches = switches._replace(is_inside=_is_inside(self.policy, table))
        parameters = _places(self.policy)
        step = _OptimizerStep(self.policy.optimizer)
        measured: list[Tensor] = []
        first_of_epoch = 0
        for _ in range(self.n_epochs):
            first_of_epoch = len(measured)
            for rows in buffer.shuffled().split(self.batch_size):
                update = self._update(len(rows), table, settings, switches, parameters)
                measures = update(rows, is_shown=is_watched and not measured)
                measured.append(measures)
                if self.target_kl is not None and measures[4].item() > 1.5 * self.target_kl:
                    break
                update.give_gradients()
                step(update.gradient)
            else:
                self._n_updates += 1
                continue
            self._n_updates += 1
            break
        every = torch.stack(measured)
        return every[first_of_epoch:, 4].tolist(), every

    def _update(
        self, rows: int, table: Tensor | None, settings: Settings, switches: Switches, parameters: tuple[int, ...]
    ) -> _Update:
        """Return the recorded gradient of minibatches of so many rows, with the settings."""
        key = rows, None if table is None else len(table), switches
        update = self._tapes.get(key)
        if update is None or update.parameters != parameters:
            update = self._tapes[key] = _Update(self, rows, table, switches, parameters)
        update.set(settings)
        return update

    def _settings(self) -> tuple[Settings, Switches]:
        remaining = self._current_progress_remaining
        clip_range, clip_range_vf = (
            schedule(remaining) if callable(schedule) else 0.0 for schedule in (self.clip_range, self.clip_range_vf)
        )
        numbers = (1 - clip_range, 1 + clip_range, clip_range, clip_range_vf)
        numbers += (self.ent_coef, self.vf_coef, self.max_grad_norm)
        tensors = (torch.tensor(float(number), dtype=torch.float64, device=self.device) for number in numbers)
        return Settings(*tensors), Switches(
            self.normalize_advantage, self.clip_range_vf is not None, self.ent_coef != 0
        )

    def _log(self, kls: list[float], measures: Tensor) -> None:
        mean, last = Measures(*measures.mean(0).tolist()), Measures(*measures[-1].tolist())
        loss = last.policy_loss + self.ent_coef * last.entropy_loss + self.vf_coef * last.value_loss
        if not np.isfinite(loss):
            raise ValueError(
                f"the loss is {loss} after {self.num_timesteps} steps: a lower learning rate, max_grad_norm or "
                "normalised rewards may prevent it"
            )
        values, returns = (getattr(self.rollout_buffer, name).flatten() for name in ("values", "returns"))
        self.logger.record("train/entropy_loss", mean.entropy_loss)
        self.logger.record("train/policy_gradient_loss", mean.policy_loss)
        self.logger.record("train/value_loss", mean.value_loss)
        self.logger.record("train/approx_kl", np.mean(kls))
        self.logger.record("train/clip_fraction", mean.clip_fraction)
        self.logger.record("train/loss", loss)
        self.logger.record("train/explained_variance", explained_variance(values, returns))
        if hasattr(self.policy, "log_std"):
            self.logger.record("train/std", self.policy.log_std.exp().mean().item())
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        remaining = self._current_progress_remaining
        self.logger.record("train/clip_range", self.clip_range(remaining))  # pyright: ignore[reportCallIssue]
        if self.clip_range_vf is not None:
            self.logger.record("train/clip_range_vf", self.clip_range_vf(remaining))  # pyright: ignore[reportCallIssue]

    def _acting(self, observation: Observation) -> Acting:
        """Return what acts, recorded at the first rollout."""
        parameters = _places(self.policy)
        if self._recorded_acting is None or self._recorded_acting[0] != parameters:
            with torch.no_grad(), unvalidated():
                self._recorded_acting = parameters, Acting(self.policy, observation, self._is_recorded)
        return self._recorded_acting[1]


class _Update:
    """The gradient of minibatches of one size, recorded at the first."""

    def __init__(
        self, model: DevicePPO, rows: int, table: Tensor | None, switches: Switches, parameters: tuple[int, ...]
    ) -> None:
        self.model = model
        self.switches = switches
        self.table = table
        self.parameters = parameters
        learnt = learnt_parameters(model.policy)
        self.rows = torch.zeros(rows, dtype=torch.int64, device=model.device)
        self.settings = Settings(*(torch.zeros((), dtype=torch.float64, device=model.device) for _ in Settings._fields))
        self.gradient = learnt[0].new_zeros(sum(parameter.numel() for parameter in learnt))
        parts = self.gradient.split([parameter.numel() for parameter in learnt])
        self.gradients = [(p, part.view_as(p)) for p, part in zip(learnt, parts, strict=True)]
        self.tape: Tape | None = None
        self.given: Settings | None = None

    def set(self, settings: Settings) -> None:
        """Take the settings of an update."""
        if settings is self.given:
            return
        self.given = settings
        for mine, other in zip(self.settings, settings, strict=True):
            mine.copy_(other)

    def __call__(self, rows: Tensor, is_shown: bool) -> Tensor:
        """Compute the gradient of some rows, and return the measures, ``(5,)``.

        :param is_shown: run the policy's forward hooks, which a replay does not.
        """
        self.rows.copy_(rows)
        if self.tape is None:
            with nullcontext() if is_shown else _without_hooks(self.model.policy):
                self.tape = Tape(lambda: (self._compute(),))
        elif is_shown:
            return self._compute()
        else:
            self.tape.replay()
        return self.tape.outputs[0].clone()

    def give_gradients(self) -> None:
        """Put the gradients where the optimiser takes them from."""
        for parameter, part in self.gradients:
            parameter.grad = part

    def _compute(self) -> Tensor:
        model = self.model
        buffer: Any = model.rollout_buffer
        with static(), inside_range() if self.switches.is_inside else nullcontext():
            return gradient(model.policy, buffer, self.rows, self.table, self.settings, self.switches, self.gradient)


class _OptimizerStep:
    """The steps of an optimiser in one update, after which its learning rate may be another.

    The first is taken as usual, since an optimiser may make its state then. The second is recorded if the optimiser is
    fused: others decide by the values of tensors what to do.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        hooks = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
        self.is_recorded = not hooks and all(group.get("fused") for group in optimizer.param_groups)
        self.gradients: int | None = None
        self.tape: Tape | None = None

    def __call__(self, gradients: Tensor) -> None:
        """Take a step along gradients that lie in one tensor."""
        if not self.is_recorded or self.gradients != gradients.data_ptr():
            self.gradients, self.tape = gradients.data_ptr(), None
            self.optimizer.step()
        elif self.tape is None:
            self.tape = Tape(self._step)
        else:
            self.tape.replay()

    def _step(self) -> tuple[Tensor, ...]:
        self.optimizer.step()
        return ()


def _places(policy: Any) -> tuple[int, ...]:
    """Return where a policy's parameters lie: a tape of others is of no use."""
    return tuple(parameter.data_ptr() for parameter in policy.parameters())


def _is_static(policy: Any) -> bool:
    """Return whether a policy computes the same operations for all values.

    Penalties of generated weights are of the distinct contexts of each minibatch, and so do not.
    """
    is_known = type(policy).__module__.partition(".")[0] in ("hyperrl", "stable_baselines3")
    return is_known and not (isinstance(policy, HyperPolicy) and policy.hyper_config.is_penalised)


def _is_inside(policy: Any, table: Tensor | None) -> bool:
    """Return whether contexts, a table of them ``(K, d)``, are all inside the range from which encoders go on."""
    encoders = [module for module in policy.modules() if isinstance(module, SecantExtrapolation)]
    if table is None or not encoders:
        return False
    contexts = policy.reader({policy.reader.key: table})
    return all(encoder.contains(contexts) for encoder in encoders)


@contextmanager
def _without_hooks(policy: torch.nn.Module) -> Iterator[None]:
    """Leave forward hooks out, such as those of diagnostics, which are to see one minibatch an update."""
    hooks = [(module._forward_hooks, module._forward_hooks.copy()) for module in policy.modules()]
    for registered, _ in hooks:
        registered.clear()
    try:
        yield
    finally:
        for registered, kept in hooks:
            registered.update(kept)
