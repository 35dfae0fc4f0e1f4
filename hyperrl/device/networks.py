"""The policies of one agent, or of several that are computed in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, final

import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_map

from hyperrl.policies import HyperPolicy
from hyperrl.simulation.simulator import Observation

Results = tuple[Tensor, Tensor, Tensor | None]


@final
class Networks:
    """The policies of G agents, alike but for the values of their parameters.

    Those of several agents are put one upon another, and each policy's become parts of these: what changes the ones
    changes the others.

    :param policies: one of each agent.
    """

    def __init__(self, policies: Sequence[ActorCriticPolicy]) -> None:
        self.policies: Final = tuple(policies)
        self._module: Final = _Module(self.policies[0])
        self._stacked: Final[dict[str, Tensor]] = {}
        if len(self.policies) == 1:
            return
        names = [name for name, _ in self.policies[0].named_parameters()]
        for name, *alike in zip(names, *(policy.parameters() for policy in self.policies), strict=True):
            stacked = torch.stack([parameter.detach() for parameter in alike])
            for parameter, part in zip(alike, stacked, strict=True):
                parameter.data = part
            self._stacked[f"policy.{name}"] = stacked.requires_grad_(alike[0].requires_grad)

    def __len__(self) -> int:
        return len(self.policies)

    def part(self) -> None:
        """Give each policy parameters of its own again."""
        for policy in self.policies:
            for parameter in policy.parameters():
                parameter.data = parameter.data.clone()

    def learnt(self) -> list[Tensor]:
        """Return the parameters that have gradients, of several agents as one tensor ``(G, *shape)`` each."""
        parameters = self._stacked.values() if self._stacked else self.policies[0].parameters()
        return [parameter for parameter in parameters if parameter.requires_grad]

    def evaluate(
        self, observation: Observation, actions: Tensor, table: Tensor | None, index: Tensor | None
    ) -> Results:
        """Return values, log-probabilities and entropies, each ``(G, B)``, of what the agents observed and did.

        :param observation: the rows of one agent after those of another, ``(G·B, …)``, as are the actions.
        :param table: contexts ``(G, K, d)``, where policies take them so.
        :param index: the place of each row's context in its agent's table, int64 of shape ``(G·B,)``.
        """
        values, log_prob, entropy = self._each("evaluate", observation, actions, table, index)
        return values.flatten(1), log_prob, entropy

    def act(self, observation: Observation, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return actions ``(G·n, *action shape)``, values ``(G·n, 1)`` and log-probabilities ``(G·n,)``.

        :param observation: as above.
        :param noise: from which actions are sampled, ``(G, n, k)``; see :mod:`hyperrl.device.distributions`.
        """
        actions, values, log_prob = self._each("act", observation, noise.flatten(0, 1))
        return actions.flatten(0, 1), values.flatten(0, 1), log_prob.flatten()

    def _each(self, method: str, observation: Observation, rows: Tensor, *others: Tensor | None) -> Any:
        """Call a method of :class:`_Module` with each agent's rows; results have one more dimension, the first."""
        g = len(self)
        given = [{key: entry.unflatten(0, (g, -1)) for key, entry in observation.items()}, rows.unflatten(0, (g, -1))]
        if others and others[0] is not None:
            given += [others[0], others[1].unflatten(0, (g, -1))]  # pyright: ignore[reportOptionalMemberAccess]
        if g == 1:
            results = getattr(self._module, method)(*tree_map(lambda tensor: tensor.squeeze(0), given))
            return tuple(None if result is None else result.unsqueeze(0) for result in results)

        def of_one(parameters: dict[str, Tensor], *its: Any) -> Any:
            return functional_call(self._module, parameters, (method, *its), tie_weights=False)

        return vmap(of_one)(self._stacked, *given)


class _Module(nn.Module):
    """The methods of one policy by name, since torch puts other parameters in for ``forward`` alone."""

    def __init__(self, policy: ActorCriticPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, method: str, *args: Any) -> Any:
        return getattr(self, method)(*args)

    def evaluate(
        self, observation: Observation, actions: Tensor, table: Tensor | None = None, index: Tensor | None = None
    ) -> Results:
        if table is None or index is None:
            return self.policy.evaluate_actions(observation, actions)
        if len(table) >= len(index):  # fewer sets of weights are generated if each row has its own
            table, index = table.index_select(0, index), torch.arange(len(index), device=index.device)
        policy: Any = self.policy
        return policy.evaluate_actions(observation, actions, condition=policy.condition(table, index))

    def act(self, observation: Observation, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        policy: Any = self.policy
        policy.action_dist.noise = noise
        given = {}
        if isinstance(policy, HyperPolicy):
            contexts = observation[policy.context_key]
            given["condition"] = policy.condition(contexts, torch.arange(len(contexts), device=contexts.device))
        return policy(observation, **given)
