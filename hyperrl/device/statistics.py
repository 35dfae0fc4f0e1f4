"""``VecNormalize`` on tensors: running statistics of observations and returns, exchanged with the original."""

from __future__ import annotations

from collections.abc import Sequence
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
    """Means and variances of all rows that each of G agents saw, by the algorithm of Chan et al. (1979); float64.

    :param sources: what to go on from, one of each agent.
    :param device: where the tensors are.
    """

    def __init__(self, sources: Sequence[RunningMeanStd], device: torch.device) -> None:
        self.sources: Final = sources
        self.mean = torch.as_tensor(np.stack([source.mean for source in sources]), dtype=torch.float64, device=device)
        self.var = torch.as_tensor(np.stack([source.var for source in sources]), dtype=torch.float64, device=device)
        self.count = float(sources[0].count)

    def update(self, rows: Tensor) -> None:
        """Take rows ``(G, n, *shape)`` into account."""
        var, mean = torch.var_mean(rows.double(), 1, correction=0)
        delta = mean - self.mean
        total = self.count + rows.shape[1]
        share = rows.shape[1] / total
        self.mean = torch.add(self.mean, delta, alpha=share)
        self.var = self.var.lerp(var, share).addcmul_(delta, delta, value=share * (1 - share))
        self.count = total

    def export(self) -> None:
        """Write the statistics back to where they came from."""
        for source, mean, var in zip(self.sources, self.mean.cpu().numpy(), self.var.cpu().numpy(), strict=True):
            source.mean, source.var, source.count = mean, var, self.count


@final
class Normalizer:
    """What the ``VecNormalize`` of each of G agents does in a step, on tensors.

    :param sources: which statistics to go on from; :meth:`export` brings them up to date. All have the same settings.
    :param device: where the tensors are.
    """

    def __init__(self, sources: Sequence[VecNormalize], device: torch.device) -> None:
        self.sources: Final = sources
        observed: list[Any] = [source.obs_rms for source in sources] if sources[0].norm_obs else [{}]
        self._observed: Final = {key: RunningMoments([rms[key] for rms in observed], device) for key in observed[0]}
        self._of_returns: Final = RunningMoments([source.ret_rms for source in sources], device)
        returns = np.stack([source.returns for source in sources])
        self._returns = torch.as_tensor(returns, dtype=torch.float64, device=device)  # (G, n)
        self._last: Step | None = None

    def __call__(self, step: Step) -> Step:
        """Return a step with normalised observations and rewards, float32, whose statistics count from now on.

        :param step: of ``G·n`` environments, those of one agent after those of another.
        """
        source, self._last = self.sources[0], step
        reward = step.reward.float().view(self._returns.shape)
        if source.training:
            for key, moments in self._observed.items():
                moments.update(step.observation[key].unflatten(0, self._returns.shape))
            self._returns = torch.add(reward, self._returns, alpha=source.gamma)
            self._of_returns.update(self._returns)
        if source.norm_reward:
            scaled = reward * (self._of_returns.var + source.epsilon).rsqrt()[:, None]
            reward = scaled.clamp_(-source.clip_reward, source.clip_reward).float()
        self._returns = self._returns.masked_fill(step.ended.view(self._returns.shape), 0.0)
        observation = self._normalized(step.observation)
        last = observation if step.last is step.observation else self._normalized(step.last)
        return step._replace(observation=observation, reward=reward.flatten(), last=last)

    def export(self) -> None:
        """Bring each ``VecNormalize`` up to date."""
        for moments in (*self._observed.values(), self._of_returns):
            moments.export()
        for i, source in enumerate(self.sources):
            source.returns = self._returns[i].cpu().numpy()
            if self._last is not None:
                n = len(source.returns)
                its = slice(i * n, (i + 1) * n)
                source.old_reward = self._last.reward[its].cpu().numpy().astype(np.float32)
                source.old_obs = {key: entry[its].cpu().numpy() for key, entry in self._last.observation.items()}

    def _normalized(self, observation: Observation) -> Observation:
        result = dict(observation)
        source = self.sources[0]
        for key, moments in self._observed.items():
            rows = observation[key].unflatten(0, self._returns.shape)
            scaled = (rows - moments.mean[:, None]) / (moments.var[:, None] + source.epsilon).sqrt()
            result[key] = scaled.clamp(-source.clip_obs, source.clip_obs).float().flatten(0, 1)
        return result
