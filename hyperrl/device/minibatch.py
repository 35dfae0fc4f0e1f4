"""PPO's loss on minibatches and its gradient, as one computation without shapes or choices that depend on values."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hyperrl.device.buffer import TensorRolloutBuffer
from hyperrl.device.networks import Networks


class Settings(NamedTuple):
    """Numbers that may change from one update to the next, as tensors without dimensions.

    :param least: the ratio below which a gain is clipped.
    :param most: that above which it is.
    :param clip_range: how far from 1 they are.
    :param clip_range_vf: how far a value may move, where that is limited.
    :param ent_coef: weight of the entropy.
    :param vf_coef: weight of the error of values.
    :param max_grad_norm: what longer gradients are shortened to.
    """

    least: Tensor
    most: Tensor
    clip_range: Tensor
    clip_range_vf: Tensor
    ent_coef: Tensor
    vf_coef: Tensor
    max_grad_norm: Tensor


class Switches(NamedTuple):
    """What decides which operations a loss has."""

    normalizes_advantage: bool
    clips_values: bool
    rewards_entropy: bool
    is_inside: bool = False
    """All contexts lie in the training range."""


class Measures(NamedTuple):
    """What Stable-Baselines3 logs of a minibatch, in the order in which :func:`gradient` returns it."""

    policy_loss: float
    value_loss: float
    entropy_loss: float
    clip_fraction: float
    approx_kl: float


def gradient(
    networks: Networks,
    buffer: TensorRolloutBuffer,
    rows: Tensor,
    table: Tensor | None,
    settings: Settings,
    switches: Switches,
    into: Tensor,
) -> Tensor:
    """Compute the losses of G agents on a minibatch of each, write their clipped gradients, return :class:`Measures`.

    :param rows: which rows of the flat buffer, int64 of shape ``(G, B)``.
    :param table: the contexts of each agent's rollout, shape ``(G, K, d)``, where policies take them so.
    :param into: where the gradients go, shape ``(G, P)``: all parameters that are learnt, one after another, flat.
    :return: the measures of each agent, shape ``(G, 5)``.
    """
    g, b = rows.shape
    rows = rows.flatten()
    observation = {key: entry.flatten(0, 1).index_select(0, rows) for key, entry in buffer.observed.items()}
    actions, *others = (
        buffer.flat(name).index_select(0, rows) for name in ("actions", "values", "log_probs", "advantages", "returns")
    )
    old_values, old_log_prob, advantages, returns = (other.view(g, b) for other in others)
    index = None if table is None else buffer.context_index.index_select(0, rows)
    values, log_prob, entropy = networks.evaluate(observation, actions, table, index)  # (G, B)
    share = 1 / b
    with torch.no_grad():
        if switches.normalizes_advantage and b > 1:
            advantages = advantages - advantages.mean(1, keepdim=True)
            variance = advantages.square().sum(1, keepdim=True) / (b - 1)  # sooner than torch's
            advantages = advantages / (variance.sqrt() + 1e-8)
        log_ratio = log_prob - old_log_prob
        ratio = log_ratio.exp()
        gain, clipped_gain = advantages * ratio, advantages * ratio.clamp(settings.least, settings.most)
        error = values - returns
        if switches.clips_values:
            moved = (values - old_values).clamp(-settings.clip_range_vf, settings.clip_range_vf)
            error = old_values + moved - returns
        # The loss's derivative: inside the clip range both gains are the same, outside the clipped one is constant.
        of_log_prob = gain.masked_fill(gain > clipped_gain, 0.0) * -share
        of_values = error * (settings.vf_coef * (2 * share))
        if switches.clips_values:
            of_values = of_values.masked_fill((values - old_values).abs() > settings.clip_range_vf, 0.0)
        outputs, derivatives = [log_prob, values], [of_log_prob, of_values]
        if switches.rewards_entropy:
            if entropy is None:
                of_log_prob += settings.ent_coef * share
            elif entropy.requires_grad:
                outputs.append(entropy)
                derivatives.append(torch.zeros_like(entropy) - settings.ent_coef * share)
    found = torch.autograd.grad(outputs, networks.learnt(), derivatives, allow_unused=True, materialize_grads=True)
    with torch.no_grad():
        torch.cat([part.reshape(g, -1) for part in found], dim=1, out=into)
        norm = torch.linalg.vector_norm(into, dim=1, keepdim=True)
        into.mul_((settings.max_grad_norm / (norm + 1e-6)).clamp(max=1.0))
        change = ratio - 1
        outside = (change.abs() > settings.clip_range).to(ratio.dtype)
        lost = -torch.min(gain, clipped_gain)
        order = log_prob if entropy is None else -entropy
        return torch.stack([lost, error.square(), order, outside, change - log_ratio], dim=1).mean(2)
