"""Soft actor-critic whose gradient steps are recorded once and replayed."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Final, final

import torch
from stable_baselines3 import SAC
from stable_baselines3.common.distributions import SquashedDiagGaussianDistribution
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, ReplayBufferSamples
from stable_baselines3.common.utils import polyak_update
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from hyperrl.device.distributions import HALF_LOG_TAU
from hyperrl.device.recording import are_inside, is_static, is_watched, places, without_hooks
from hyperrl.device.tape import NotStaticError, Tape
from hyperrl.hypernet import inside_range, static
from hyperrl.hypernet.heads import FactoredHead, Head
from hyperrl.policies.context import context_extractor

Samples = ReplayBufferSamples | DictReplayBufferSamples
SHOWN: Final = 1000
"""Forward hooks, such as those of diagnostics, run in the first update of so many gradient steps."""


@final
class DeviceSAC(SAC):
    """Stable-Baselines3's ``SAC``, whose gradient steps are recorded once and replayed in the same memory.

    Arguments, callbacks, logger, replay buffer and zips are those of ``SAC``: each loads the other's zips, and the same
    seed gives the same training but for rounding. See :class:`~hyperrl.device.tape.Tape`.

    What a tape cannot hold is computed as in ``SAC``: gSDE, heads that generate whole weights, batch normalisation,
    policies of other packages, and the losses ``squared_norm`` and ``similarity``.

    >>> from hyperrl import load_family
    >>> from hyperrl.policies import HyperSACPolicy
    >>> vec_env = load_family("pendulum").vec_env(4)
    >>> model = DeviceSAC(HyperSACPolicy, vec_env, learning_starts=16, buffer_size=1000, device="cpu")
    >>> model.learn(64).num_timesteps
    64
    """

    def _setup_model(self) -> None:
        super()._setup_model()
        heads = [module for module in self.policy.modules() if isinstance(module, Head)]
        self._is_recorded = (
            is_static(self.policy)
            and type(self.actor.action_dist) is SquashedDiagGaussianDistribution
            and not self.batch_norm_stats  # to record is to compute once more
            and all(isinstance(head, FactoredHead) for head in heads)  # others generate whole weights for each row
        )
        self._steps: dict[Any, _GradientStep] = {}

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_is_recorded", "_steps"]

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """Update the networks; see Stable-Baselines3."""
        is_shown = -self._n_updates % SHOWN < gradient_steps and is_watched(self.policy)
        if not self._is_recorded or is_shown:
            super().train(gradient_steps, batch_size)
            return
        alpha = self.ent_coef_optimizer
        self._update_learning_rate([self.actor.optimizer, self.critic.optimizer, *([] if alpha is None else [alpha])])
        assert self.replay_buffer is not None
        measured: list[Tensor] = []
        lie = places([self.actor, self.critic, self.critic_target])
        if self.log_ent_coef is not None:
            lie += (self.log_ent_coef.data_ptr(),)
        for i in range(gradient_steps):
            batch = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
            try:
                step = self._step_of(batch, lie)
                measured.append(step(batch))
            except NotStaticError:
                self._is_recorded = False
                self._n_updates += i
                super().train(gradient_steps - i, batch_size)
                return
            if i % self.target_update_interval == 0:
                polyak_update(*step.critics_and_targets, self.tau)
        self._n_updates += gradient_steps
        ent_coef, actor_loss, critic_loss, ent_coef_loss = torch.stack(measured).mean(0).tolist()
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/ent_coef", ent_coef)
        self.logger.record("train/actor_loss", actor_loss)
        self.logger.record("train/critic_loss", critic_loss)
        if alpha is not None:
            self.logger.record("train/ent_coef_loss", ent_coef_loss)

    def _step_of(self, batch: Samples, lie: tuple[int, ...]) -> _GradientStep:
        """Return the gradient step of batches such as this one, with what has been recorded.

        :param lie: where the parameters lie.
        """
        extractor = context_extractor(self.actor)
        contexts = None
        if extractor is not None:
            contexts = torch.cat([extractor.reader(each) for each in (batch.observations, batch.next_observations)])
        is_inside = are_inside(self.actor, contexts)
        key = len(batch.rewards), is_inside, self.target_entropy, lie
        if key not in self._steps:
            self._steps = {other: step for other, step in self._steps.items() if other[-1] == key[-1]}
            self._steps[key] = _GradientStep(self, batch, is_inside)
        return self._steps[key]


class _Learnt:
    """The parameters of an optimiser, and one tensor that holds all of their gradients."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
        sizes = [parameter.numel() for parameter in self.parameters]
        self.gradient = self.parameters[0].new_zeros(sum(sizes))
        parts = self.gradient.split(sizes)
        self.parts = [part.view_as(p) for p, part in zip(self.parameters, parts, strict=True)]

    def differentiate(self, loss: Tensor) -> None:
        """Compute the gradients of a loss."""
        found = torch.autograd.grad(loss, self.parameters, allow_unused=True, materialize_grads=True)
        with torch.no_grad():
            torch.cat([part.flatten() for part in found], out=self.gradient)

    def step(self) -> None:
        """Take a step along the gradients."""
        for parameter, part in zip(self.parameters, self.parts, strict=True):
            parameter.grad = part
        self.optimizer.step()


class _GradientStep:
    """A step of critics, actor and entropy coefficient on batches of one size, recorded at the first.

    :param model: whose networks and optimisers these are.
    :param batch: the first batch.
    :param is_inside: whether all contexts lie in the training range.
    """

    def __init__(self, model: SAC, batch: Samples, is_inside: bool) -> None:
        self.model = model
        self.is_inside = is_inside
        self.critics, self.actor = _Learnt(model.critic.optimizer), _Learnt(model.actor.optimizer)
        self.alpha = None if model.ent_coef_optimizer is None else _Learnt(model.ent_coef_optimizer)
        self.given = tree_map(torch.clone, _entries(batch, model.gamma))
        self.ent_coef = next(model.actor.parameters()).new_zeros(1)
        self.noise = self.ent_coef.new_zeros(2, *batch.actions.shape)
        self.critics_and_targets = [*model.critic.parameters()], [*model.critic_target.parameters()]
        self.tapes: tuple[Tape, Tape] | None = None

    def __call__(self, batch: Samples) -> Tensor:
        """Take the step, and return entropy coefficient and losses of actor, critics, entropy coefficient, ``(4,)``."""
        for mine, other in zip(tree_leaves(self.given), tree_leaves(_entries(batch, self.model.gamma)), strict=True):
            mine.copy_(other)
        for noise in self.noise:
            noise.normal_()
        self.tapes = self.tapes or self._record()
        self.tapes[0].replay()
        self.critics.step()
        self.tapes[1].replay()
        self.actor.step()
        if self.alpha is not None:
            self.alpha.step()
        (critic_loss,), (actor_loss, ent_coef_loss) = (tape.outputs for tape in self.tapes)
        return torch.stack([self.ent_coef.squeeze(), actor_loss, critic_loss, ent_coef_loss])

    def _record(self) -> tuple[Tape, Tape]:
        """Record what critics and actor compute, to be replayed at once: rounding is then the same in all steps."""
        self.model.policy.set_training_mode(True)
        with static(), inside_range() if self.is_inside else nullcontext(), without_hooks(self.model.policy):
            return Tape(self._judge), Tape(self._improve)

    def _judge(self) -> tuple[Tensor, ...]:
        """Compute the critics' gradients, and return their loss."""
        model, given = self.model, self.given
        with torch.no_grad():
            self.ent_coef.copy_(model.ent_coef_tensor if model.log_ent_coef is None else model.log_ent_coef.exp())
            actions, log_prob = self._act(given["next_observations"], self.noise[1])
            value = torch.cat(model.critic_target(given["next_observations"], actions), dim=1).amin(1, keepdim=True)
            wanted = given["rewards"] + given["weights"] * (value - self.ent_coef * log_prob)
        found = torch.cat(model.critic(given["observations"], given["actions"]), dim=1)  # (B, n)
        loss = 0.5 * (found - wanted).square().mean(0).sum()
        self.critics.differentiate(loss)
        return (loss,)

    def _improve(self) -> tuple[Tensor, ...]:
        """Compute the gradients of actor and entropy coefficient, and return their losses."""
        model, observations = self.model, self.given["observations"]
        actions, log_prob = self._act(observations, self.noise[0])
        value = torch.cat(model.critic(observations, actions), dim=1).amin(1, keepdim=True)
        loss = (self.ent_coef * log_prob - value).mean()
        self.actor.differentiate(loss)
        with torch.no_grad():
            gradient = -(log_prob + float(model.target_entropy)).mean()
            if self.alpha is None or model.log_ent_coef is None:
                return loss, gradient
            self.alpha.gradient.copy_(gradient)
            return loss, (model.log_ent_coef * gradient).squeeze()

    def _act(self, observations: Any, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return actions ``(B, m)`` made of standard normal noise, and their log-probabilities ``(B, 1)``."""
        mean, log_std, _ = self.model.actor.get_action_dist_params(observations)
        actions = torch.tanh(mean + noise * log_std.exp())
        squashing = (1 - actions.square() + self.model.actor.action_dist.epsilon).log()
        nats = 0.5 * noise.square() + log_std + squashing
        return actions, -nats.sum(1, keepdim=True) - noise.shape[1] * HALF_LOG_TAU


def _entries(batch: Samples, gamma: float) -> dict[str, Any]:
    """Return what a step takes of a batch; the weights are those of the values of what comes next, ``(B, 1)``."""
    discounts = gamma if batch.discounts is None else batch.discounts
    return dict(
        observations=batch.observations,
        next_observations=batch.next_observations,
        actions=batch.actions,
        rewards=batch.rewards,
        weights=(1 - batch.dones) * discounts,
    )
