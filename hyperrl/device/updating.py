"""An update: all epochs of minibatches, their gradients and the optimisers' steps, recorded and replayed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple, final

import numpy as np
import torch
from stable_baselines3 import PPO
from torch import Tensor

from hyperrl.device.buffer import TensorRolloutBuffer
from hyperrl.device.minibatch import Settings, Switches, gradient
from hyperrl.device.networks import Networks
from hyperrl.device.recording import are_inside, is_watched, places, without_hooks
from hyperrl.device.tape import Tape
from hyperrl.hypernet import inside_range, static
from hyperrl.policies import HyperPolicy


class Measured(NamedTuple):
    """What an update did for one agent."""

    kls: list[float]
    """The divergence of each minibatch of the last epoch."""
    measures: Tensor
    """Of all minibatches, shape ``(minibatches, 5)``; see :class:`~hyperrl.device.minibatch.Measures`."""


@final
class Updates:
    """Updates of G agents from one buffer, in which their environments stand side by side.

    :param models: the agents, of the same settings; their policies are those of ``networks``.
    :param networks: their policies.
    :param buffer: where rollouts are.
    """

    def __init__(self, models: Sequence[PPO], networks: Networks, buffer: TensorRolloutBuffer) -> None:
        self.models = models
        self.networks = networks
        self.buffer = buffer
        self.places = places(networks.policies)
        self._minibatches: dict[Any, _Minibatch] = {}

    def __call__(self, generators: Sequence[Any] = (np.random,)) -> list[Measured]:
        """Update from minibatches, in Stable-Baselines3's order, each agent until its divergence is too large.

        :param generators: of numpy, one of each agent, which shuffle.
        """
        model, buffer = self.models[0], self.buffer
        policy: Any = model.policy
        table = buffer.tabulate(len(self.models)) if isinstance(policy, HyperPolicy) else None
        is_shown = len(self.models) == 1 and is_watched(policy)
        settings, switches = _settings(model)
        contexts = None if table is None else policy.reader({policy.reader.key: table})
        switches = switches._replace(is_inside=are_inside(policy, contexts))
        steps = [_OptimizerStep(each.policy.optimizer) for each in self.models]
        measured: list[Tensor] = []
        counts = [0 for _ in self.models]  # minibatches of each agent
        firsts = [0 for _ in self.models]  # where its last epoch began
        epochs = [0 for _ in self.models]
        going = [*range(len(self.models))]
        for _ in range(model.n_epochs):
            for i in going:
                firsts[i] = len(measured)
                epochs[i] += 1
            shuffling = [generator if i in going else None for i, generator in enumerate(generators)]
            for rows in buffer.shuffled(shuffling).split(model.batch_size, dim=1):
                minibatch = self._minibatch(rows.shape[1], table, settings, switches)
                measures = minibatch(rows, is_shown=is_shown and not measured)  # (G, 5)
                measured.append(measures)
                for i in going:
                    counts[i] += 1
                if model.target_kl is not None:
                    kls = measures[:, 4].tolist()
                    going = [i for i in going if kls[i] <= 1.5 * model.target_kl]
                for i in going:
                    minibatch.give_gradients(i)
                    steps[i](minibatch.gradient[i])
                if not going:
                    break
            if not going:
                break
        for each, taken in zip(self.models, epochs, strict=True):
            each._n_updates += taken
        every = torch.stack(measured, dim=1)  # (G, minibatches, 5)
        return [
            Measured(every[i, first:count, 4].tolist(), every[i, :count])
            for i, (first, count) in enumerate(zip(firsts, counts, strict=True))
        ]

    def _minibatch(self, rows: int, table: Tensor | None, settings: Settings, switches: Switches) -> _Minibatch:
        """Return the recorded gradient of minibatches of so many rows, with the settings."""
        key = rows, None if table is None else table.shape[1], switches
        if key not in self._minibatches:
            self._minibatches[key] = _Minibatch(self.networks, self.buffer, rows, table, switches)
        self._minibatches[key].set(settings)
        return self._minibatches[key]


class _Minibatch:
    """The gradients of minibatches of one size, recorded at the first."""

    def __init__(
        self, networks: Networks, buffer: TensorRolloutBuffer, rows: int, table: Tensor | None, switches: Switches
    ) -> None:
        self.networks = networks
        self.buffer = buffer
        self.switches = switches
        self.table = table
        g, device = len(networks), buffer.device
        self.rows = torch.zeros(g, rows, dtype=torch.int64, device=device)
        self.settings = Settings(*(torch.zeros((), dtype=torch.float64, device=device) for _ in Settings._fields))
        learnt = [[p for p in policy.parameters() if p.requires_grad] for policy in networks.policies]
        sizes = [parameter.numel() for parameter in learnt[0]]
        self.gradient = learnt[0][0].new_zeros(g, sum(sizes))
        self.gradients = [
            [(p, part.view_as(p)) for p, part in zip(its, row.split(sizes), strict=True)]
            for its, row in zip(learnt, self.gradient, strict=True)
        ]
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
        """Compute the gradients of some rows ``(G, B)``, and return the measures, ``(G, 5)``.

        :param is_shown: run the policy's forward hooks, which a replay does not.
        """
        self.rows.copy_(rows)
        if self.tape is None:
            with nullcontext() if is_shown else without_hooks(self.networks.policies[0]):
                self.tape = Tape(lambda: (self.compute(),))
        elif is_shown:
            return self.compute()
        else:
            self.tape.replay()
        return self.tape.outputs[0].clone()

    def give_gradients(self, i: int) -> None:
        """Put the gradients of an agent where its optimiser takes them from."""
        for parameter, part in self.gradients[i]:
            parameter.grad = part

    def compute(self) -> Tensor:
        """Compute what a replay does."""
        with static(), inside_range() if self.switches.is_inside else nullcontext():
            return gradient(
                self.networks, self.buffer, self.rows, self.table, self.settings, self.switches, self.gradient
            )


class _OptimizerStep:
    """The steps of an optimiser in one update, after which its learning rate may be another.

    The first is taken as usual, since an optimiser may make its state then. The second is recorded if the optimiser is
    fused: others decide by the values of tensors what to do. On a CUDA device a fused step is a few launches, and to
    capture them in each update would take longer.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        hooks = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
        is_fused = all(group.get("fused") for group in optimizer.param_groups)
        is_on_cuda = any(parameter.is_cuda for group in optimizer.param_groups for parameter in group["params"])
        self.is_recorded = is_fused and not hooks and not is_on_cuda
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


def _settings(model: Any) -> tuple[Settings, Switches]:
    remaining = model._current_progress_remaining
    clip_range: Any
    clip_range_vf: Any
    clip_range, clip_range_vf = (
        schedule(remaining) if callable(schedule) else 0.0 for schedule in (model.clip_range, model.clip_range_vf)
    )
    numbers = (1 - clip_range, 1 + clip_range, clip_range, clip_range_vf)
    numbers += (model.ent_coef, model.vf_coef, model.max_grad_norm)
    tensors = (torch.tensor(float(number), dtype=torch.float64, device=model.device) for number in numbers)
    return Settings(*tensors), Switches(model.normalize_advantage, model.clip_range_vf is not None, model.ent_coef != 0)
