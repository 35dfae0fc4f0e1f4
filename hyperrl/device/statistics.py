"""``VecNormalize`` on tensors: running statistics of observations and returns, exchanged with the original."""

from __future__ import annotations

from typing import Any, Final, final

import numpy as np
import torch
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from hyperrl.simulation import Step
from hyperrl.simulation.simulator import Observation


@final
class RunningMoments:
    """Mean and variance of all rows seen, by the parallel algorithm of Chan et al. (1979); float64.

    :param source: what to go on from.
    :param device: where the tensors are.
    """

    def __init__(self, source: RunningMeanStd, device: torch.device) -> None:
        self.source: Final = source
        self.mean = torch.as_tensor(source.mean, dtype=torch.float64, device=device)
        self.var = torch.as_tensor(source.var, dtype=torch.float64, device=device)
        self.count = float(source.count)

    def update(self, rows: Tensor) -> None:
        """Take rows ``(n, *shape)`` into account."""
        var, mean = torch.var_mean(rows.double(), 0, correction=0)
        delta = mean - self.mean
        total = self.count + len(rows)
        share = len(rows) / total
        self.mean = torch.add(self.mean, delta, alpha=share)
        self.var = self.var.lerp(var, share).addcmul_(delta, delta, value=share * (1 - share))
        self.count = total

    def export(self) -> None:
        """Write the statistics back to where they came from."""
        self.source.mean, self.source.var = self.mean.cpu().numpy(), self.var.cpu().numpy()
        self.source.count = self.count


@final
class Normalizer:
    """What a ``VecNormalize`` does in a step, on tensors.

    :param source: which statistics to go on from; :meth:`export` brings it up to date.
    :param device: where the tensors are.
    """

    def __init__(self, source: VecNormalize, device: torch.device) -> None:
        self.source: Final = source
        running: Any = source.obs_rms if source.norm_obs else {}
        self._observed: Final = {key: RunningMoments(moments, device) for key, moments in running.items()}
        self._of_returns: Final = RunningMoments(source.ret_rms, device)
        self._returns = torch.as_tensor(source.returns, dtype=torch.float64, device=device)
        self._last: Step | None = None

    def __call__(self, step: Step) -> Step:
        """Return a step with normalised observations and rewards, float32, whose statistics count from now on."""
        source, self._last = self.source, step
        reward = step.reward.float()
        if source.training:
            for key, moments in self._observed.items():
                moments.update(step.observation[key])
            self._returns = torch.add(reward, self._returns, alpha=source.gamma)
            self._of_returns.update(self._returns)
        if source.norm_reward:
            scaled = reward * (self._of_returns.var + source.epsilon).rsqrt()
            reward = scaled.clamp_(-source.clip_reward, source.clip_reward).float()
        self._returns = self._returns.masked_fill(step.ended, 0.0)
        observation = self._normalized(step.observation)
        last = observation if step.last is step.observation else self._normalized(step.last)
        return step._replace(observation=observation, reward=reward, last=last)

    def export(self) -> None:
        """Bring the ``VecNormalize`` up to date."""
        for moments in (*self._observed.values(), self._of_returns):
            moments.export()
        self.source.returns = self._returns.cpu().numpy()
        if self._last is not None:
            self.source.old_reward = self._last.reward.cpu().numpy().astype(np.float32)
            self.source.old_obs = {key: entry.cpu().numpy() for key, entry in self._last.observation.items()}

    def _normalized(self, observation: Observation) -> Observation:
        result = dict(observation)
        for key, moments in self._observed.items():
            scaled = (observation[key] - moments.mean) / (moments.var + self.source.epsilon).sqrt()
            result[key] = scaled.clamp(-self.source.clip_obs, self.source.clip_obs).float()
        return result
