"""``VecNormalize`` on tensors: running statistics of observations and returns, exchanged with the original."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
        self.mean, self.var, self.count = (torch.as_tensor(value, device=device) for value in self._given())

    def _given(self) -> Iterator[np.ndarray]:
        for name in ("mean", "var"):
            yield np.stack([getattr(source, name) for source in self.sources]).astype(np.float64)
        yield np.array(self.sources[0].count, dtype=np.float64)

    def load(self) -> None:
        """Go on from the sources as they are now."""
        for mine, value in zip((self.mean, self.var, self.count), self._given(), strict=True):
            mine.copy_(torch.from_numpy(value))

    def update(self, rows: Tensor) -> None:
        """Take rows ``(G, n, *shape)`` into account, in place."""
        var, mean = torch.var_mean(rows.double(), 1, correction=0)
        delta = mean - self.mean
        self.count += rows.shape[1]
        share = rows.shape[1] / self.count
        step = delta * share
        self.mean += step
        self.var.lerp_(var, share).addcmul_(delta, step * (1 - share))

    def export(self) -> None:
        """Write the statistics back to where they came from."""
        means, variances, count = self.mean.cpu().numpy(), self.var.cpu().numpy(), self.count.item()
        for source, mean, var in zip(self.sources, means, variances, strict=True):
            source.mean, source.var, source.count = mean.copy(), var.copy(), count


@final
class Normalizer:
    """What the ``VecNormalize`` of each of G agents does in a step, on tensors that stay in one place.

    :param sources: which statistics to go on from; :meth:`export` brings them up to date. All have the same settings.
    :param device: where the tensors are.
    """

    def __init__(self, sources: Sequence[VecNormalize], device: torch.device) -> None:
        self.sources: Final = sources
        self._settings: Final = _settings(sources[0])
        observed: list[Any] = [source.obs_rms for source in sources] if sources[0].norm_obs else [{}]
        self._observed: Final = {key: RunningMoments([rms[key] for rms in observed], device) for key in observed[0]}
        self._of_returns: Final = RunningMoments([source.ret_rms for source in sources], device)
        self._returns: Final = torch.as_tensor(self._given_returns(), device=device)  # (G, n)
        self.last: Step | None = None
        """The last step as the environments gave it."""

    def _given_returns(self) -> np.ndarray:
        return np.stack([source.returns for source in self.sources]).astype(np.float64)

    def serves(self, sources: Sequence[VecNormalize]) -> bool:
        """Return whether these are its ``VecNormalize``, with the settings that they had."""
        same = len(sources) == len(self.sources) and all(a is b for a, b in zip(sources, self.sources, strict=True))
        return same and _settings(sources[0]) == self._settings

    def load(self) -> None:
        """Go on from each ``VecNormalize`` as it is now."""
        for moments in (*self._observed.values(), self._of_returns):
            moments.load()
        self._returns.copy_(torch.from_numpy(self._given_returns()))

    def __call__(self, step: Step) -> Step:
        """Return a step with normalised observations and rewards, float32, whose statistics count from now on.

        :param step: of ``G·n`` environments, those of one agent after those of another.
        """
        source, self.last = self.sources[0], step
        reward = step.reward.float().view(self._returns.shape)
        if source.training:
            for key, moments in self._observed.items():
                moments.update(step.observation[key].unflatten(0, self._returns.shape))
            self._returns.mul_(source.gamma).add_(reward)
            self._of_returns.update(self._returns)
        if source.norm_reward:
            scaled = reward * (self._of_returns.var + source.epsilon).rsqrt()[:, None]
            reward = scaled.clamp_(-source.clip_reward, source.clip_reward).float()
        self._returns.masked_fill_(step.ended.view(self._returns.shape), 0.0)
        observation = self._normalized(step.observation)
        last = observation if step.last is step.observation else self._normalized(step.last)
        return step._replace(observation=observation, reward=reward.flatten(), last=last)

    def export(self) -> None:
        """Bring each ``VecNormalize`` up to date."""
        for moments in (*self._observed.values(), self._of_returns):
            moments.export()
        returns = self._returns.cpu().numpy()
        for i, source in enumerate(self.sources):
            source.returns = returns[i].copy()
            if self.last is not None:
                n = len(source.returns)
                its = slice(i * n, (i + 1) * n)
                source.old_reward = self.last.reward[its].cpu().numpy().astype(np.float32)
                source.old_obs = {key: entry[its].cpu().numpy().copy() for key, entry in self.last.observation.items()}

    def _normalized(self, observation: Observation) -> Observation:
        result = dict(observation)
        source = self.sources[0]
        for key, moments in self._observed.items():
            rows = observation[key].unflatten(0, self._returns.shape)
            scaled = (rows - moments.mean[:, None]) / (moments.var[:, None] + source.epsilon).sqrt()
            result[key] = scaled.clamp(-source.clip_obs, source.clip_obs).float().flatten(0, 1)
        return result


def _settings(source: VecNormalize) -> tuple[Any, ...]:
    """Return what decides, besides its statistics, what a ``VecNormalize`` computes."""
    names = ("training", "norm_obs", "norm_reward", "clip_obs", "clip_reward", "gamma", "epsilon")
    return tuple(getattr(source, name) for name in names)
