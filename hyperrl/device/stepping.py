"""What the environments do in each step of a rollout, recorded: simulate, begin episodes, normalise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, final

import torch
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from hyperrl.device.recording import is_static_simulator
from hyperrl.device.statistics import Normalizer
from hyperrl.device.tape import NotStaticError, Tape
from hyperrl.simulation import BatchedVecEnv, Simulator, TensorVecEnv
from hyperrl.simulation.simulator import Moved, Step


@final
class Stepping:
    """Environments that step as a ``VecNormalize`` around them shows it.

    A recorded step is two replays. On a GPU they take the place of a hundred launches; a CPU takes as long either way.

    :param env: the environments.
    :param sources: the ``VecNormalize`` of each agent that acts in them; none where nothing is normalised.
    :param device: where the statistics are, and steps are to be.
    :param is_recorded: record steps where that can be: on the same device, of a family whose physics is hyperrl's own
        and computes with torch, unless contexts switch within episodes. By default on a GPU.

    >>> from hyperrl import load_family
    >>> vec_env = load_family("pendulum").vec_env(3, seed=0)
    >>> _ = vec_env.reset()
    >>> stepping = Stepping(vec_env, [], torch.device("cpu"), is_recorded=True)
    >>> stepping(torch.zeros(3, 1)).reward.shape, stepping.is_recorded
    (torch.Size([3]), True)
    """

    def __init__(
        self, env: TensorVecEnv, sources: Sequence[VecNormalize], device: torch.device, is_recorded: bool | None = None
    ) -> None:
        self.env: Final = env
        self._device: Final = torch.empty(0, device=device).device  # with its number
        self.normalizer: Final = Normalizer(sources, device) if sources else None
        self._simulator: Simulator | None = None
        is_recorded = device.type == "cuda" if is_recorded is None else is_recorded
        if is_recorded and isinstance(env, BatchedVecEnv) and type(env) is BatchedVecEnv:
            simulator = env.simulator
            is_here = simulator.contexts.device == self._device  # a CUDA graph leaves out what the CPU computes
            self._simulator = simulator if is_here and is_static_simulator(simulator) else None
        self._tapes: _Tapes | None = None

    @property
    def is_recorded(self) -> bool:
        """Whether steps are replayed."""
        return self._tapes is not None

    def serves(self, env: TensorVecEnv, sources: Sequence[VecNormalize]) -> bool:
        """Return whether what is recorded holds for these environments and the settings of these ``VecNormalize``."""
        if self.normalizer is None or not sources:
            return self.env is env and self.normalizer is None and not sources
        return self.env is env and self.normalizer.serves(sources)

    def __call__(self, actions: Tensor) -> Step:
        """Take one step in all environments.

        :param actions: shape ``(n, *action shape)``, within the action space.
        :return: a step whose observations, rewards and ends are not changed later; all else is, by the next.
        :raises ValueError: for a state that is no longer finite.
        """
        if self._simulator is not None and self._tapes is None:
            try:
                self._tapes = _Tapes(self._simulator, self._shown, actions)
            except NotStaticError:
                self._simulator = None
        if self._tapes is None:
            return self._shown(self.env.step_tensors(actions))
        step, shown = self._tapes(actions)
        if self.normalizer is not None:
            self.normalizer.last = step
        return shown

    def load(self) -> None:
        """Go on from the statistics of each ``VecNormalize`` as they are now: a rollout begins."""
        if self.normalizer is not None:
            self.normalizer.load()

    def export(self) -> None:
        """Bring the statistics of each ``VecNormalize`` up to date: a rollout ends."""
        if self.normalizer is not None:
            self.normalizer.export()

    def _shown(self, step: Step) -> Step:
        if step.reward.device != self._device:
            has_last = step.last is not step.observation
            step = tree_map(lambda tensor: tensor.to(self._device), step if has_last else step._replace(last={}))
            step = step if has_last else step._replace(last=step.observation)
        return step if self.normalizer is None else self.normalizer(step)


@final
class _Tapes:
    """The steps of a simulator, recorded in two halves, since only the first tells whether any episode ended.

    :raises NotStaticError: where the physics cannot be recorded; then nothing has changed.
    """

    def __init__(self, simulator: Simulator, shown: Callable[[Step], Step], actions: Tensor) -> None:
        self._simulator: Final = simulator
        self._shown: Final = shown
        dtype = torch.float64 if actions.is_floating_point() else torch.int64
        self._actions: Final = actions.to(simulator.device, dtype, copy=True)
        self._places: Final[dict[str, Tensor]] = {}
        simulator.settle(self._places)
        self._first: Final = _Recorded(self._move)
        self._second: Final[dict[bool, _Recorded]] = {}  # by whether an episode ended

    def __call__(self, actions: Tensor) -> tuple[Step, Step]:
        """Take a step, and return it as it is and as it is shown."""
        simulator = self._simulator
        self._actions.copy_(actions)
        simulator.settle(self._places)
        moved, signals = self._first.replay()
        total, ended = signals.tolist()
        if not math.isfinite(total):
            simulator.raise_not_finite(self._actions, moved.state)
        any_ended = ended > 0
        if any_ended:
            simulator.draw_ahead()
            simulator.settle(self._places)
        known = self._second.get(any_ended)
        if known is None:  # recording takes the step
            known = self._second[any_ended] = _Recorded(lambda: self._follow(moved, any_ended))
            step, shown = known.result()
        else:
            step, shown = known.replay()
        observation = {key: entry.clone() for key, entry in shown.observation.items()}
        last = shown.last if any_ended else observation
        return step, shown._replace(
            observation=observation, last=last, reward=shown.reward.clone(), ended=shown.ended.clone()
        )

    def _move(self) -> tuple[Moved, Tensor]:
        moved = self._simulator.move(self._actions)
        # The sum is finite only if each number is, and one look at the device answers both questions.
        return moved, torch.stack([moved.state.sum((0, 1)), moved.ended.to(moved.state.dtype).sum(0)])

    def _follow(self, moved: Moved, any_ended: bool) -> tuple[Step, Step]:
        if any_ended:  # the simulator's own contexts will be those of the episodes that begin
            moved = moved._replace(last={key: entry.clone() for key, entry in moved.last.items()})
        step = self._simulator.follow(moved, any_ended)
        shown = self._shown(step)
        self._simulator.settle(self._places)
        return step, shown


@final
class _Recorded:
    """A tape of what returns tensors within tuples and dicts."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._structure: Any = None

        def leaves() -> tuple[Tensor, ...]:
            found, self._structure = tree_flatten(function())
            return tuple(found)

        self._tape: Final = Tape(leaves)

    def replay(self) -> Any:
        self._tape.replay()
        return self.result()

    def result(self) -> Any:
        return tree_unflatten(self._tape.outputs, self._structure)
