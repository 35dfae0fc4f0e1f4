"""What the policy does in each step of a rollout, recorded: sample actions and judge observations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, final

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor
from torch.random import fork_rng

from hyperrl.device.tape import NotStaticError, Tape
from hyperrl.hypernet import static
from hyperrl.hypernet.heads import FactoredHead
from hyperrl.policies import HyperPolicy
from hyperrl.simulation.simulator import Observation


@final
class Acting:
    """A policy that acts in ``n`` environments.

    :param policy: in evaluation mode.
    :param observation: of ``n`` environments.
    :param is_recorded: replay a tape where the policy's computations allow it.
    :param forward: what computes actions, values and log-probabilities of an observation, if not the policy.
    """

    def __init__(
        self,
        policy: ActorCriticPolicy,
        observation: Observation,
        is_recorded: bool,
        forward: Callable[[Observation], tuple[Tensor, Tensor, Tensor]] | None = None,
    ) -> None:
        self.policy: Final = policy
        self._forward: Final[Callable[..., tuple[Tensor, Tensor, Tensor]]] = forward or policy
        space = policy.action_space
        self._bounds = None
        if isinstance(space, spaces.Box):
            device = policy.device
            self._bounds = torch.as_tensor(space.low, device=device), torch.as_tensor(space.high, device=device)
        self._observation = {key: entry.clone() for key, entry in observation.items()}
        self._generating: Tape | None = None
        self._tape: Tape | None = None
        if is_recorded and not policy.use_sde:
            try:
                with static(), fork_rng([policy.device] if policy.device.type == "cuda" else []):
                    self._record()  # what is sampled here is sampled for nobody
            except NotStaticError:
                self._generating = self._tape = None

    def __call__(self, observation: Observation, has_new_contexts: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return actions, those within the bounds, values ``(n, 1)`` and log-probabilities ``(n,)``.

        :param has_new_contexts: whether a context may be another one than in the last call, or a parameter.
        """
        if self._tape is None:
            return self._act(observation)
        for key, entry in self._observation.items():
            entry.copy_(observation[key])
        if self._generating is not None and has_new_contexts:
            self._generating.replay()
        self._tape.replay()
        actions, applied, values, log_probs = (output.clone() for output in self._tape.outputs)
        return actions, applied, values, log_probs

    def _record(self) -> None:
        policy = self.policy
        given: dict[str, Any] = {}
        if isinstance(policy, HyperPolicy) and self._forward is policy:
            if not isinstance(policy.actor.head, FactoredHead):
                return  # whole weights are generated for distinct contexts alone, and kept
            contexts = self._observation[policy.context_key]
            rows = torch.arange(len(contexts), device=contexts.device)

            def generate() -> tuple[Tensor, ...]:
                given["condition"] = policy.condition(contexts, rows)
                return tuple(policy.generate(given["condition"]))

            self._generating = Tape(generate)
        self._tape = Tape(lambda: self._act(self._observation, **given))

    def _act(self, observation: Observation, **given: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        actions, values, log_probs = self._forward(observation, **given)
        applied = actions
        if self._bounds is not None:
            low, high = self._bounds
            if self.policy.squash_output:
                applied = low + 0.5 * (actions + 1.0) * (high - low)
            else:
                applied = actions.clamp(low, high)
        return actions, applied, values, log_probs
