"""What a family promises, checked: its features act, its default is the base, seeds reproduce, nothing leaks."""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Any, Final

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from hyperrl.contexts import Feature, Vector
from hyperrl.families.family import Family

STEPS: Final = 200
"""The most steps of one trajectory."""
HOLD: Final = 8
"""Every other trajectory holds each action, an extreme one, for so many steps: it gets farther."""


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    :param check: what was checked.
    :param fault: what is wrong; ``None`` where nothing is.
    :param note: what else there is to say.
    """

    check: str
    fault: str | None = None
    note: str = ""


Step = tuple[dict[str, Any], float, bool]
"""Observation, reward, and whether the episode terminated."""


def check_family(family: Family, seed: int = 0) -> list[Finding]:
    """Check what hyperrl relies on, in episodes of random actions.

    - Every feature acts: some observation, reward or end changes with it, in the same episode or, where there are
      physics, from random states.
    - At the default context the family is its base environment, step for step.
    - The same seed gives the same contexts and trajectories, another one other contexts.
    - Environments in other contexts do not change what an environment does.
    - Physics do what the environment does in a step, and their rows do not depend on each other.
    - Observations lie in the observation space.
    - The checkers of Gymnasium and Stable-Baselines3 find no fault.
    - Episodes have a time limit.

    :param family: the family.
    :param seed: seed of contexts, initial states and actions.
    :return: a finding for each check, one a feature for the first.
    :raises ValueError: where the family cannot make an environment.

    >>> from hyperrl import load_family
    >>> {finding.fault for finding in check_family(load_family("ode"))}
    {None}
    """
    family.make().close()
    checks: list[tuple[str, Callable[[], str | None]]] = [
        (f"feature {feature.name} acts", lambda feature=feature: _acts(family, feature, seed))
        for feature in family.context_space.relevant.features
    ]
    if family.has_base:
        checks.append(("the default context is the base", lambda: _default_is_base(family, seed)))
    checks.append(("the same seed gives the same episodes", lambda: _seeding(family, seed)))
    checks.append(("environments do not leak into one another", lambda: _leaks(family, seed)))
    if family.has_physics:
        checks.append(("batched physics equal the single environment", lambda: _physics_equal(family, seed)))
        checks.append(("rows of the physics are independent", lambda: _rows(family, seed)))
    checks.append(("observations lie in their space", lambda: _in_space(family, seed)))
    checks.append(("Gymnasium's checker", lambda: _gymnasium(family)))
    checks.append(("Stable-Baselines3's checker", lambda: _sb3(family)))
    checks.append(("episodes have a time limit", lambda: _time_limit(family)))
    return [_finding(name, check) for name, check in checks]


def _finding(name: str, check: Callable[[], str | None]) -> Finding:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            fault = check()
        except Exception as error:  # of the user's environment, whatever it raises
            fault = f"{type(error).__name__}: {error}"
    said = dict.fromkeys(str(w.message).replace("\x1b[33mWARN: ", "").replace("\x1b[0m", "") for w in caught)
    return Finding(name, fault, "; ".join(said))


def _acts(family: Family, feature: Feature, seed: int) -> str | None:
    """Compare episodes, and steps of the physics, that differ in one feature alone."""
    default = family.context_space.as_dict(family.context_space.default)
    ends = sorted({end for interval in (*feature.train, *feature.bounds) for end in interval} - {feature.default})
    for value in ends:
        for trial in range(4):
            pair = [_episode(family.make(default | {feature.name: v}), seed + trial) for v in (feature.default, value)]
            if _difference(*pair, but=("context",)) is not None:
                return None
    if family.has_physics and any(_acts_anywhere(family, feature, value, seed) for value in ends):
        return None
    return f"nothing changes in {4 * len(ends)} episodes with {feature.name} from {feature.default:g} to {ends}"


def _acts_anywhere(family: Family, feature: Feature, value: float, seed: int) -> bool:
    """Whether steps of the physics from random observations change with a feature."""
    import torch

    physics, n, rng = family.physics(), 4096, np.random.default_rng(seed)
    low, high = (np.clip(end, -10, 10) for end in (physics.observation_space.low, physics.observation_space.high))
    state = physics.state_of(torch.from_numpy(rng.uniform(low, high, (n, *low.shape))))
    action = _tensor(list(islice(_actions(physics.action_space, seed), n)))
    results = []
    for v in (feature.default, value):
        context = family.context_space.as_dict(family.context_space.default) | {feature.name: v}
        c = {name: torch.full((n,), x, dtype=torch.float64) for name, x in context.items()}
        results.append(physics.step(state, action, c))
    return any(not torch.equal(a, b) for a, b in zip(*results, strict=True))


def _default_is_base(family: Family, seed: int) -> str | None:
    for trial in range(3):
        base = family.base()
        if family.max_episode_steps is not None:
            base = TimeLimit(base, family.max_episode_steps)
        ours = _episode(family.make({}), seed + trial)
        fault = _difference(ours, _episode(base, seed + trial), but=("context",))
        if fault is not None:
            return f"seed {seed + trial}, {fault}"
    return None


def _seeding(family: Family, seed: int) -> str | None:
    env = family.make()
    first, again, elsewhere = (_episode(env, seed), _episode(env, seed), _episode(family.make(), seed))
    for other, where in ((again, "played again"), (elsewhere, "in another environment")):
        fault = _difference(other, first)
        if fault is not None:
            return f"seed {seed} {where}, {fault}"
    if np.array_equal(_episode(env, seed + 1)[0][0]["context"], first[0][0]["context"]):
        return f"seeds {seed} and {seed + 1} give the same context"
    return None


def _leaks(family: Family, seed: int) -> str | None:
    one, other = family.context_space.sample("train", 2, seed)
    alone = _episode(family.make(one), seed)
    env, neighbour = family.make(one), family.make(other)
    neighbour.reset(seed=seed)

    def disturb(action: Any) -> None:
        _, _, terminated, truncated, _ = neighbour.step(action)
        if terminated or truncated:
            neighbour.reset()

    fault = _difference(_episode(env, seed, disturb), alone)
    return None if fault is None else f"beside an environment in another context, {fault}"


def _physics_equal(family: Family, seed: int) -> str | None:
    """Take each step of an episode with the physics too, from the state that the environment is in."""

    physics = family.physics()
    for trial, context in enumerate(_contexts(family, seed)):
        env = family.make(context)
        c = {name: _tensor([value]) for name, value in family.context_space.as_dict(context).items()}
        before: dict[str, Any] | None = None
        actions: list[Any] = []
        for i, (observation, reward, terminated) in enumerate(_episode(env, seed + trial, actions.append)):
            state = None if before is None else physics.state_of(_tensor([before["observation"]]))
            if state is not None and state.isfinite().all():
                state, ours, ends = physics.step(state, _tensor([actions[i - 1]]), c)
                seen = physics.observe(state)[0].numpy()
                if not np.allclose(seen, observation["observation"], rtol=1e-4, atol=1e-6):  # it is float32
                    return f"step {i}: the environment observes {observation['observation']}, the physics {seen}"
                if not np.allclose(ours.item(), reward, rtol=1e-3, atol=1e-4):
                    return f"step {i}: the environment rewards {reward}, the physics {ours.item()}"
                if bool(ends.item()) != terminated:
                    return (
                        f"step {i}: terminated is {terminated} in the environment, {bool(ends.item())} in the physics"
                    )
            before = observation
    return None


def _rows(family: Family, seed: int) -> str | None:
    import torch

    physics, space, n = family.physics(), family.context_space, 5
    rng = np.random.default_rng(seed)
    contexts = space.sample("train", n, seed)
    uniform = torch.from_numpy(rng.random((n, physics.uniforms)))
    action = _tensor(list(islice(_actions(physics.action_space, seed), n)))

    def run(rows: slice) -> list[Any]:
        c = dict(zip(space.names, torch.from_numpy(contexts[rows].T.copy()), strict=True))
        state = physics.initial(uniform[rows], c)
        return [physics.observe(state), *physics.step(state, action[rows], c)]

    together = run(slice(n))
    for i in range(n):
        for all_rows, row in zip(together, run(slice(i, i + 1)), strict=True):
            if not torch.allclose(all_rows[i : i + 1].double(), row.double(), rtol=1e-12, atol=1e-12):
                return f"row {i} of {n} gives {all_rows[i].tolist()}, alone {row[0].tolist()}"
    return None


def _in_space(family: Family, seed: int) -> str | None:
    for trial, context in enumerate(_contexts(family, seed)):
        env = family.make(context)
        space = env.observation_space
        assert isinstance(space, spaces.Dict)  # families make no others
        for i, (observation, _, _) in enumerate(_episode(env, seed + trial)):
            for name, entry in space.items():
                if not entry.contains(observation[name]):
                    value = observation[name]
                    kind = f" of type {getattr(value, 'dtype', type(value).__name__)}"
                    return f"step {i}, {name!r}: {value}{kind} is not in {entry}"
    return None


def _gymnasium(family: Family) -> str | None:
    from gymnasium.utils.env_checker import check_env

    check_env(family.context_env(), skip_render_check=True)
    return None


def _sb3(family: Family) -> str | None:
    from stable_baselines3.common.env_checker import check_env

    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it takes for an environment with goals
        check_env(family.context_env(), skip_render_check=True)
    return None


def _time_limit(family: Family) -> str | None:
    return None if family.max_episode_steps is not None else "there is none: give max_episode_steps"


def _contexts(family: Family, seed: int) -> Iterator[Vector]:
    """The default, and contexts that cover the bounds."""
    space = family.context_space
    yield space.default
    yield from space.sample("train", 3, seed)
    yield from space.from_uniform(np.random.default_rng(seed).random((3, len(space))), bounds=True)


def _episode(env: gym.Env[Any, Any], seed: int, also: Callable[[Any], object] | None = None) -> list[Step]:
    """Play one episode of random actions.

    :param also: is called with each action, before it is taken.
    """
    actions = _actions(env.action_space, seed, extreme=seed % 2 == 1)
    observation, _ = env.reset(seed=seed)
    said: list[Step] = [(_named(observation), 0.0, False)]
    for action in islice(actions, STEPS):
        if also is not None:
            also(action)
        observation, reward, terminated, truncated, _ = env.step(action)
        said.append((_named(observation), float(reward), bool(terminated)))
        if terminated or truncated:
            break
    return said


def _actions(space: spaces.Space[Any], seed: int, extreme: bool = False) -> Iterator[Any]:
    """Draw actions without end; extreme ones are at the ends of bounded ranges, each held for some steps."""
    space = copy.deepcopy(space)
    space.seed(seed)
    while True:
        action = space.sample()
        if extreme and isinstance(space, spaces.Box) and space.is_bounded():
            action = np.where(action > (space.low + space.high) / 2, space.high, space.low).astype(space.dtype)
        yield from repeat(action, HOLD if extreme else 1)


def _named(observation: Any) -> dict[str, Any]:
    """Return a copy of an observation by entries."""
    entries = observation if isinstance(observation, Mapping) else {"observation": observation}
    return {name: np.array(value) if isinstance(value, np.ndarray) else value for name, value in entries.items()}


def _difference(ours: list[Step], expected: list[Step], but: tuple[str, ...] = ()) -> str | None:
    """Say where two episodes part."""
    for i, (mine, other) in enumerate(zip(ours, expected, strict=False)):
        for name in other[0]:
            if name not in but and not _equal(mine[0][name], other[0][name]):
                return f"step {i}: {name} is {mine[0][name]} instead of {other[0][name]}"
        if mine[1:] != other[1:] and not np.isnan([mine[1], other[1]]).all():
            return f"step {i}: reward and end are {mine[1:]} instead of {other[1:]}"
    if len(ours) != len(expected):
        return f"the episode takes {len(ours) - 1} steps instead of {len(expected) - 1}"
    return None


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray) and a.dtype.kind in "fc":
        return np.array_equal(a, b, equal_nan=True)
    return bool(np.array_equal(a, b))


def _tensor(rows: list[Any]) -> Any:
    import torch

    array = np.stack([np.asarray(row) for row in rows])
    tensor = torch.from_numpy(array)
    return tensor.double() if tensor.is_floating_point() else tensor
