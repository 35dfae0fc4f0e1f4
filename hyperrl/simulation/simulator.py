"""The simulator: many environments of one family, stepped together as rows of tensors.

What it does is the same for every client; :mod:`hyperrl.simulation.vec_env` offers it to Stable-Baselines3 and
:mod:`hyperrl.simulation.vector_env` to Gymnasium, both with numpy arrays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike
from torch import Tensor

from hyperrl.contexts import ContextBox, ContextSpace
from hyperrl.physics.base import Physics
from hyperrl.simulation.draws import signed, splitmix64, training_contexts, uniform
from hyperrl.simulation.switching import Switching
from hyperrl.utils.devices import find_device

Observation = dict[str, Tensor]
"""``observation`` (n, o), of the type that its space has, and ``context`` (n, d), float32."""


class Step(NamedTuple):
    """What one step of ``n`` environments gave."""

    observation: Observation
    """What is observed now: of the new episode where one ended, with the new context where one switched."""
    reward: Tensor
    """float64, shape (n,)."""
    terminated: Tensor
    """bool, shape (n,)."""
    truncated: Tensor
    """bool, shape (n,): the time limit is reached, whether terminated or not."""
    ended: Tensor
    """bool, shape (n,): terminated or truncated."""
    last: Observation
    """What the step led to, in the context that it was taken in: other than ``observation`` where an episode ended, or
    the context switched."""
    returns: Tensor
    """Undiscounted return of each episode with this step, float64, shape (n,)."""
    lengths: Tensor
    """Number of steps of each episode with this one, int64, shape (n,)."""
    switched: Tensor
    """bool, shape (n,): the episode goes on in another context from here."""


class Moved(NamedTuple):
    """Where a step led ``n`` environments, before other episodes begin; most fields are those of :class:`Step`."""

    state: Tensor
    """shape (n, s)."""
    last: Observation
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    ended: Tensor
    returns: Tensor
    lengths: Tensor


class Simulator:
    """``n`` environments of one family, each with its own context; an episode that ends is followed by the next.

    The random numbers of environment ``i`` depend on nothing but its seed and how many episodes it has begun since.

    All tensors lie on the device. Those handed out are not changed later, some are handed out again by the next step:
    change none of them. They are made in inference mode: clone what is to take part in a computation of gradients.

    :param physics: the dynamics.
    :param context_space: the features.
    :param n: how many environments.
    :param max_episode_steps: the time limit, ``None`` for none.
    :param contexts: shape ``(m, d)``: environment ``i`` starts with context ``i % m`` and goes on in steps of ``n``;
        ``None`` draws one from the training range for each episode.
    :param device: where the tensors are: ``"cpu"``, ``"cuda"``, ``"auto"`` for cuda where there is one.
    :param switch: the least and the greatest number of steps after which the context changes within an episode: to one
        of ``contexts``, or to another draw from the training range. ``None``: it never does.
    :raises ValueError: for contexts out of bounds, a device that is not there, and where the physics needs a feature
        that there is not.

    >>> from hyperrl import load_family
    >>> family = load_family("pendulum")
    >>> simulator = Simulator(family.physics(), family.context_space, n=3, max_episode_steps=2)
    >>> simulator.seed([0, 1, 2])
    >>> simulator.reset()["observation"].shape
    torch.Size([3, 3])
    >>> for _ in range(2):
    ...     step = simulator.step(torch.zeros(3, 1))
    >>> step.ended, step.lengths, simulator.episode
    (tensor([True, True, True]), tensor([2, 2, 2]), tensor([1, 1, 1]))
    """

    def __init__(
        self,
        physics: Physics,
        context_space: ContextSpace,
        n: int,
        max_episode_steps: int | None,
        contexts: ArrayLike | None = None,
        device: str = "cpu",
        switch: tuple[int, int] | None = None,
    ) -> None:
        if n < 1:
            raise ValueError(f"expected at least one environment, got {n}")
        check_features(physics, context_space)
        self.physics = physics = physics.on(device)
        self.context_space = context_space
        self.n = n
        self.max_episode_steps = max_episode_steps
        self.device = physics.device or find_device(device)
        box = ContextBox(context_space)
        self.observation_space = spaces.Dict(observation=physics.observation_space, context=box)
        self.action_space = physics.action_space
        self._observed_type = torch.float64 if physics.observation_space.dtype == np.float64 else torch.float32
        self._action_shape = (n, *(physics.action_space.shape or ()))
        self.state: Tensor | None = None
        """The states of the physics, shape ``(n, s)``; ``None`` before the first :meth:`reset`."""
        self.episode = torch.full((n,), -1, device=self.device)
        """The number of each environment's episode since it was seeded, from 0, int64 of shape ``(n,)``."""
        fixed = None if contexts is None else torch.from_numpy(context_space.matrix(contexts))
        self._fixed = None if fixed is None else fixed.to(self.device)
        self._keys = torch.from_numpy(np.random.default_rng().integers(-(2**63), 2**63, n)).to(self.device)
        # Torch takes constants on the device faster than Python's, and compares faster than it reduces.
        self._none = torch.zeros(n, dtype=torch.bool, device=self.device)
        self._one = torch.tensor(1, device=self.device)
        self._limit = torch.tensor(2**63 - 1 if max_episode_steps is None else max_episode_steps, device=self.device)
        self._returns = torch.zeros(n, dtype=torch.float64, device=self.device)
        self._lengths = torch.zeros(n, dtype=torch.int64, device=self.device)
        default = torch.from_numpy(context_space.default).to(self.device).repeat(n, 1)
        self._columns = default.T.contiguous()  # (d, n): what the physics reads of a feature lies together
        self._c = self._by_name(self._columns)
        self._observed = default.float()
        self._rows = torch.arange(n, device=self.device)
        self._drawn: Tensor | None = None  # contexts and starts of episodes to come, (n * _AHEAD, …)
        self._offset = self._rows  # episode + offset: the place in it of each environment's next episode, (n,)
        self._left = 0  # how often every environment can surely begin anew before one runs out of them
        self.switching = None if switch is None else Switching(switch, context_space, self._fixed)
        """When contexts change within episodes, and to which; ``None`` where they do not."""

    @property
    def contexts(self) -> Tensor:
        """The contexts of the episodes under way, float64 of shape ``(n, d)``."""
        return self._columns.T.clone(memory_format=torch.contiguous_format)

    @property
    def _starts_alone(self) -> bool:
        """Whether starts are made as episodes begin: MuJoCo makes one after the other, so that one too many is dear."""
        return self.physics.threads is not None

    @property
    def has_fixed_contexts(self) -> bool:
        """Whether contexts are those of a fixed set, and not fresh draws."""
        return self._fixed is not None

    def seed(self, seeds: Sequence[int | None]) -> None:
        """Seed each environment and count its episodes from 0 again; ``None`` leaves it as it is; shape ``(n,)``."""
        given = [(i, signed(seed)) for i, seed in enumerate(seeds) if seed is not None]
        if not given:
            return
        rows, words = torch.tensor(given, device=self.device).T
        self._keys = self._keys.index_copy(0, rows, splitmix64(words))
        self.episode = self.episode.index_fill(0, rows, -1)
        self._drawn, self._left = None, 0

    @torch.inference_mode()
    def reset(self, contexts: Sequence[Mapping[str, float] | ArrayLike | None] | None = None) -> Observation:
        """Begin an episode in every environment and return the first observations.

        :param contexts: the context of each environment's episode, shape ``(n,)``; ``None`` for its next.
        :raises ValueError: for a context out of bounds, before anything has changed.
        """
        given = {i: self.context_space.vector(c) for i, c in enumerate(contexts or ()) if c is not None}
        self.episode = self.episode + 1
        self._left -= 1
        drawn, start = self._draw(self.episode[:, None])
        if given:
            drawn[[*given]] = torch.from_numpy(np.stack([*given.values()])).to(self.device)
        self._set_contexts(drawn)
        self.state = self.physics.initial(start, self._c)
        self._returns = torch.zeros_like(self._returns)
        self._lengths = torch.zeros_like(self._lengths)
        if self.switching is not None:
            self.switching.begin(self._keys, self.episode)
        return self._observe(self.state)

    @torch.inference_mode()  # a fifth faster than recording what gradients would need
    def step(self, action: Tensor, checked: bool = True) -> Step:
        """Take one step in every environment.

        :param action: shape ``(n,)`` where the action space is discrete, else ``(n, a)``.
        :param checked: look at the values of actions and states, for which the host waits for the device. Without,
            nothing here does: wrong actions and states that diverge are the caller's to find.
        :raises ValueError: for actions of a wrong shape or type; where checked for an action that is NaN or no choice
            of the action space and for a state that diverges, naming the environment and its context.
        """
        if self.state is None:
            raise RuntimeError("reset() must be called before step()")
        moved = self.move(self._action(action, checked))
        # The sum is finite only if each number is, and takes one pass over them.
        if checked and not math.isfinite(moved.state.sum().item()):
            self.raise_not_finite(action, moved.state)
        # On the cpu it costs little to see whether any episode ended; on a device the host would wait for the answer.
        any_ended = not (moved.ended.is_cpu and torch.equal(moved.ended, self._none))
        if any_ended:
            self.draw_ahead()
        return self.follow(moved, any_ended)

    def move(self, action: Tensor) -> Moved:
        """Take the first half of :meth:`step`: the physics. It changes nothing here.

        :param action: on the device, float64 or int64.
        """
        assert self.state is not None
        state, reward, terminated = self.physics.step(self.state, action, self._c)
        reward = reward.double()
        returns, lengths = self._returns + reward, self._lengths + self._one
        truncated = lengths >= self._limit
        ended = terminated | truncated
        return Moved(state, self._observe(state), reward, terminated, truncated, ended, returns, lengths)

    def follow(self, moved: Moved, any_ended: bool) -> Step:
        """Take the second half of :meth:`step`: begin the next episode where one ended.

        :param moved: where the first half led; its state goes into the simulator.
        :param any_ended: whether any did, or may have; then :meth:`draw_ahead` comes before.
        """
        state, last, reward, terminated, truncated, ended, returns, lengths = moved
        self.state = state
        observation = last
        if not any_ended:
            self._returns, self._lengths = returns, lengths
        else:
            self._returns, self._lengths = returns.masked_fill(ended, 0), lengths.masked_fill(ended, 0)
            self._begin(ended, state)
            observation = self._observe(state)
        switched = self._none
        if self.switching is not None:
            switched = self._switch(self.switching, ended, any_ended)
            observation = {**observation, "context": self._observed}
        return Step(observation, reward, terminated, truncated, ended, last, returns, lengths, switched)

    def _switch(self, switching: Switching, ended: Tensor, any_ended: bool) -> Tensor:
        """Change the contexts where it is time, in place, and return where."""
        if any_ended:
            switching.begin(self._keys, self.episode, ended)
        if ended.is_cpu and not (self._lengths >= switching.due).any():
            return self._none
        switched, contexts = switching.draw(self._keys, self.episode, self._lengths)
        torch.where(switched, contexts.T, self._columns, out=self._columns)
        self._observed = self._columns.float().T.contiguous()
        return switched

    def _begin(self, ended: Tensor, state: Tensor) -> None:
        """Begin the next episode where one ended, in place."""
        assert self._drawn is not None
        drawn, places = self._drawn, self.episode + self._offset
        if self._starts_alone:
            rows = ended.nonzero().squeeze(1)
            contexts, numbers = drawn.index_select(0, places[rows]).tensor_split([len(self.context_space)], dim=1)
            state[rows] = self.physics.initial(numbers, self._by_name(contexts.T))
            self._columns[:, rows] = contexts.T
        else:  # all rows, of which the mask takes some, so that no row's index is needed on the host
            contexts, start = drawn.index_select(0, places).T.tensor_split([len(self.context_space)])
            torch.where(ended, start, state.T, out=state.T)
            torch.where(ended, contexts, self._columns, out=self._columns)
        self._observed = self._columns.float().T.contiguous()
        self.episode = self.episode + ended

    def settle(self, places: dict[str, Tensor]) -> None:
        """Bring the tensors that steps replace to the same places each time, as what records steps needs it.

        :param places: filled by the first call.
        """
        if self._drawn is None:
            self.draw_ahead()
        for name in ("state", "episode", "_returns", "_lengths", "_observed", "_drawn", "_offset"):
            now: Tensor = getattr(self, name)
            if name not in places:
                places[name] = now.clone()
            elif now is not places[name]:
                places[name].copy_(now)
            setattr(self, name, places[name])

    def draw_ahead(self) -> None:
        """Have contexts and starts for an episode to come in each environment: many at once are drawn far cheaper.

        Where starts are made alone, it is the numbers from which they are made.
        """
        if self._drawn is not None and self._left <= 0 and self.device.type == "cpu":  # see what is left in truth
            self._left = _AHEAD - int((self.episode + self._offset - self._rows * _AHEAD).max())
        if self._drawn is None or self._left <= 0:
            episodes = self.episode[:, None] + torch.arange(1, _AHEAD + 1, device=self.device)  # (n, _AHEAD)
            contexts, start = self._draw(episodes)
            if not self._starts_alone:
                start = self.physics.initial(start, self._by_name(contexts.T.contiguous()))
            self._drawn = torch.cat([contexts, start], dim=1)
            self._offset, self._left = self._rows * _AHEAD - self.episode, _AHEAD
        self._left -= 1

    def _draw(self, episodes: Tensor) -> tuple[Tensor, Tensor]:
        """Return contexts ``(n·m, d)`` and the numbers ``(n·m, u)`` from which episodes ``(n, m)`` start."""
        d, k, u = len(self.context_space), len(self.context_space.relevant), self.physics.uniforms
        numbers = uniform(self._keys, episodes, d + u).flatten(0, 1)
        # Irrelevant features take the last numbers, so that all else is as without them.
        relevant, start, irrelevant = numbers.split([k, u, d - k], dim=1)
        if self._fixed is None:
            contexts = training_contexts(self.context_space, torch.cat([relevant, irrelevant], dim=1))
        else:
            contexts = self._fixed[(self._rows[:, None] + episodes * self.n).flatten() % len(self._fixed)]
        return contexts, start

    def _set_contexts(self, contexts: Tensor) -> None:
        """Set the contexts of the episodes under way, shape ``(n, d)``."""
        self._columns.copy_(contexts.T)
        self._observed = contexts.float()

    def _by_name(self, columns: Tensor) -> dict[str, Tensor]:
        """Return the features that have an effect as views of the rows of ``columns``, shape ``(d, n)``."""
        return dict(zip(self.context_space.relevant.names, columns, strict=False))

    def __getstate__(self) -> dict[str, Any]:
        # A copy draws anew what was drawn ahead, and its views would be tensors of their own.
        return {name: value for name, value in self.__dict__.items() if name != "_c"} | {"_drawn": None, "_left": 0}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._c = self._by_name(self._columns)

    def _observe(self, state: Tensor) -> Observation:
        observation = self.physics.observe(state)  # may be the state itself, which changes when episodes begin
        observation = observation.to(self._observed_type, copy=True)
        return {"observation": observation, "context": self._observed}

    def _action(self, action: Tensor, checked: bool) -> Tensor:
        """Check actions and move them to the device."""
        space = self.action_space
        if action.shape != self._action_shape:
            raise ValueError(f"expected actions of shape {self._action_shape}, got shape {tuple(action.shape)}")
        if isinstance(space, spaces.Box):
            return action.to(self.device, torch.float64)
        if action.is_floating_point() or action.is_complex() or action.dtype == torch.bool:
            raise ValueError(f"expected whole numbers for actions in {space}, got {action.dtype}")
        action = action.to(self.device, torch.int64)
        low, high = int(space.start), int(space.start + space.n) - 1
        if checked and not torch.equal(action, action.clamp(low, high)):
            i = int((action != action.clamp(low, high)).int().argmax())
            raise ValueError(f"environment {i}: expected an action in {space}, got {action[i].item()}")
        return action

    def raise_not_finite(self, action: Tensor, after: Tensor) -> None:
        """Say which environment an action took from the present state to one after it that is not finite.

        :raises ValueError: always.
        """
        assert self.state is not None
        before = self.state
        i = int(after.abs().amax(dim=1).argmax())  # NaN counts as the largest
        context = self.context_space.as_dict(self.contexts[i].tolist())
        raise ValueError(
            f"environment {i}: the state is no longer finite: action {action[i].tolist()} took it from "
            f"{before[i].tolist()} to {after[i].tolist()} in the context {context}"
        )


def check_features(physics: Physics, context_space: ContextSpace) -> None:
    """Refuse a context space without the features that the physics needs."""
    missing = [name for name in physics.features if name not in context_space.names]
    if missing:
        raise ValueError(
            f"{type(physics).__name__} needs the features {list(physics.features)}: {missing} are not among "
            f"{list(context_space.names)}"
        )


_AHEAD = 16
"""How many episodes are drawn at once for each environment."""
