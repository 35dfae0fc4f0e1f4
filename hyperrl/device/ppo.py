"""Proximal policy optimisation on tensors, from the environments to the optimiser."""

from __future__ import annotations

import time
from typing import Any, final

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import explained_variance
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from hyperrl.device.acting import Acting
from hyperrl.device.buffer import TensorRolloutBuffer
from hyperrl.device.distributions import simplified
from hyperrl.device.minibatch import Measures
from hyperrl.device.networks import Networks
from hyperrl.device.recording import is_static, places
from hyperrl.device.stepping import Stepping
from hyperrl.device.tape import NotStaticError
from hyperrl.device.updating import Measured, Updates
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

    A minibatch's operations are recorded once and replayed in the same memory, on a GPU as a CUDA graph: see
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
        self.policy.action_dist = simplified(self.policy.action_dist)
        self._updates: Updates | None = None
        self._recorded_acting: tuple[tuple[int, ...], Acting] | None = None
        self._stepping: Stepping | None = None
        self._is_recorded = is_static(self.policy)

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
            self._updates = self._recorded_acting = None

    def _excluded_save_params(self) -> list[str]:
        return [
            *super()._excluded_save_params(),
            "rollout_buffer_class",
            "_updates",
            "_recorded_acting",
            "_stepping",
            "_is_recorded",
        ]

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
        stepping = self._stepping_in(env)
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
                step = stepping(applied)
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
                self._leave(step.observation, step.ended, stepping)
                return False
            self._update_info_buffer([*ended.values()], np.ones(len(ended), dtype=bool))
            observation = step.observation
        with torch.no_grad(), unvalidated():
            cut, last = rollout_buffer.cut_short()
            if len(cut):
                rollout_buffer.bootstrap(self.policy.predict_values(last).flatten(), cut)
            rollout_buffer.finish(starts, self.policy.predict_values(observation))
        self._leave(observation, rollout_buffer.flags["ended"][-1], stepping)
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _leave(self, observation: Observation, starts: Tensor, stepping: Stepping) -> None:
        """Note where the environments are, in what goes into zips and checkpoints."""
        self._last_obs = {key: entry.cpu().numpy() for key, entry in observation.items()}
        self._last_episode_starts = starts.cpu().numpy().copy()  # the buffer's memory serves again
        stepping.export()

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
                (measured,) = self._updates_of(buffer)()
            except NotStaticError:
                self._is_recorded = False
                super().train()
                return
        self._log(measured, buffer.tensors["values"], buffer.tensors["returns"])

    def _updates_of(self, buffer: TensorRolloutBuffer) -> Updates:
        """Return what updates from a buffer, with what has been recorded."""
        known = self._updates
        if known is None or known.buffer is not buffer or known.places != places([self.policy]):
            known = self._updates = Updates([self], Networks([self.policy]), buffer)
        return known

    def _log(self, measured: Measured, values: Tensor, returns: Tensor) -> None:
        mean, last = (Measures(*row.tolist()) for row in (measured.measures.mean(0), measured.measures[-1]))
        loss = last.policy_loss + self.ent_coef * last.entropy_loss + self.vf_coef * last.value_loss
        if not np.isfinite(loss):
            raise ValueError(
                f"the loss is {loss} after {self.num_timesteps} steps: a lower learning rate, max_grad_norm or "
                "normalised rewards may prevent it"
            )
        explained = explained_variance(*(tensor.flatten().cpu().numpy() for tensor in (values, returns)))
        self.logger.record("train/entropy_loss", mean.entropy_loss)
        self.logger.record("train/policy_gradient_loss", mean.policy_loss)
        self.logger.record("train/value_loss", mean.value_loss)
        self.logger.record("train/approx_kl", np.mean(measured.kls))
        self.logger.record("train/clip_fraction", mean.clip_fraction)
        self.logger.record("train/loss", loss)
        self.logger.record("train/explained_variance", explained)
        if hasattr(self.policy, "log_std"):
            self.logger.record("train/std", self.policy.log_std.exp().mean().item())
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        remaining = self._current_progress_remaining
        self.logger.record("train/clip_range", self.clip_range(remaining))  # pyright: ignore[reportCallIssue]
        if self.clip_range_vf is not None:
            self.logger.record("train/clip_range_vf", self.clip_range_vf(remaining))  # pyright: ignore[reportCallIssue]

    def _stepping_in(self, env: VecEnv) -> Stepping:
        """Return what steps the environments, with what has been recorded, and the present statistics."""
        tensor_env, source = find_tensor_env(env)
        sources = [] if source is None else [source]
        if self._stepping is None or not self._stepping.serves(tensor_env, sources):
            self._stepping = Stepping(tensor_env, sources, self.device)
        self._stepping.load()
        return self._stepping

    def _acting(self, observation: Observation) -> Acting:
        """Return what acts, recorded at the first rollout."""
        parameters = places([self.policy])
        if self._recorded_acting is None or self._recorded_acting[0] != parameters:
            with torch.no_grad(), unvalidated():
                self._recorded_acting = parameters, Acting(self.policy, observation, self._is_recorded)
        return self._recorded_acting[1]
