"""The untrained model of a recipe."""

from __future__ import annotations

import inspect
from typing import Any, Final

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from hyperrl.alignment.wrapper import AlignedContext
from hyperrl.device.algorithms import ON_DEVICE
from hyperrl.families.family import Family
from hyperrl.policies.registry import algorithm_class, policy_class
from hyperrl.simulation import find_tensor_env, has_tensors
from hyperrl.simulation.last_step import VecLastStep
from hyperrl.training.arguments import arguments, with_classes
from hyperrl.training.recipe import AgentSpec, agent_spec
from hyperrl.utils.devices import find_device
from hyperrl.utils.errors import nearest
from hyperrl.utils.provenance import n_parameters
from hyperrl.utils.seeding import check_seed, stream

GIVEN: Final = {
    "policy": "it stands above, as 'policy'",
    "policy_kwargs": "they have a table of their own, [policy_kwargs]",
    "env": "the family is given with the recipe",
    "seed": "give --seed, in Python seed=",
    "device": "give --device, in Python device=",
    "tensorboard_log": "the run folder holds the log",
    "_init_setup_model": "models are always set up",
}
"""Arguments of algorithms that a recipe's hyperparameters do not set, and what does."""

TRAINERS: Final = ("auto", "device", "sb3")
"""What trains: the algorithms of :mod:`hyperrl.device`, Stable-Baselines3's, or the first where they can."""

OF_ALIGNMENT: Final = ("venv", "seed", "device", "context_key")
"""Arguments of the aligned context that the recipe does not set."""

SPACES: Final = ("observation_space", "action_space", "lr_schedule")
"""Arguments of policies that the algorithm sets."""


def build(
    family: Family,
    agent: AgentSpec,
    seed: int = 0,
    contexts: int | ArrayLike | None = None,
    device: str = "auto",
    trainer: str = "sb3",
) -> BaseAlgorithm:
    """Make the untrained model of a recipe on a family.

    :param trainer: one of :data:`TRAINERS`; see :func:`~hyperrl.training.train`.
    :raises ValueError: for a negative seed and a device that is not there, and where the recipe names an unknown
        algorithm, policy or hyperparameter, or an algorithm that does not serve the family's actions.
    """
    definition = agent.definition
    check_seed(seed)
    if trainer not in TRAINERS:
        raise ValueError(f"unknown trainer {trainer!r}: known are {list(TRAINERS)}.{nearest(trainer, TRAINERS)}")
    place = find_device(device)
    try:
        algorithm: type[BaseAlgorithm] = algorithm_class(definition.algorithm)
        policy, policy_kwargs = policy_class(definition.policy, definition.algorithm)
        hyperparameters = _hyperparameters(algorithm, definition.hyperparameters)
        policy_kwargs |= arguments(policy, with_classes(definition.policy_kwargs), "policy_kwargs", hidden=SPACES)
        if definition.algorithm == "TRPO" and policy_kwargs.get("bounds_loss"):
            raise ValueError("TRPO knows no 'bounds_loss': it is a term of the losses of PPO and A2C")
        is_numpys = trainer == "sb3" or algorithm is not PPO or definition.observe_last_step or definition.alignment
        of_device = "cpu" if is_numpys or place.type != "cuda" else "auto"  # with which MuJoCo stays on the CPU
        vec_env: VecEnv = family.vec_env(
            definition.n_envs, contexts=contexts, seed=seed, switch=definition.switch, device=of_device
        )
        if definition.observe_last_step:
            if definition.alignment is not None:
                raise ValueError("'alignment' encodes the last actions: leave out 'observe_last_step'")
            vec_env = VecLastStep(vec_env)
        if definition.match_parameters is not None:
            reference = build(family, _reference(agent), device="cpu")
            policy_kwargs |= matched_width(policy, reference, policy_kwargs, vec_env.observation_space)
        if definition.alignment is not None:
            options = arguments(AlignedContext, definition.alignment, "alignment", hidden=OF_ALIGNMENT)
            vec_env = AlignedContext(vec_env, seed=seed, device=place, **options)
        if definition.normalize_reward or definition.normalize_observation:
            vec_env = VecNormalize(
                vec_env,
                norm_obs=definition.normalize_observation,
                norm_reward=definition.normalize_reward,
                gamma=hyperparameters.get("gamma", 0.99),
                norm_obs_keys=_normalized(vec_env.observation_space) if definition.normalize_observation else None,
            )
        if trainer == "device":
            if algorithm not in ON_DEVICE:
                known = " and ".join(known.__name__ for known in ON_DEVICE)
                raise ValueError(f"trainer='device' trains {known}, and 'algorithm' is {definition.algorithm!r}")
            if algorithm is PPO:
                find_tensor_env(vec_env)
        can = algorithm in ON_DEVICE and (algorithm is not PPO or has_tensors(vec_env))
        if trainer == "device" or (trainer == "auto" and can):
            algorithm = ON_DEVICE[algorithm]
        if "action_noise" in hyperparameters:
            hyperparameters["action_noise"] = _noise(hyperparameters["action_noise"], vec_env)
        made: Any = algorithm
        model: BaseAlgorithm = made(
            policy, vec_env, policy_kwargs=policy_kwargs, seed=seed, device=place, **hyperparameters
        )
    except (ValueError, AssertionError) as error:  # SB3 asserts that an algorithm serves the family's actions
        raise ValueError(f"{agent.source}: {error}") from None
    except TypeError as error:  # of a constructor that passes on **kwargs
        if "unexpected keyword argument" in str(error):
            raise ValueError(f"{agent.source}: {error}") from None
        raise
    vec_env.seed(stream(seed))  # SB3 seeded it with the bare seed
    return model


def matched_width(
    policy: type[BasePolicy],
    reference: BaseAlgorithm,
    policy_kwargs: dict[str, Any],
    observation_space: spaces.Space[Any] | None = None,
) -> dict[str, Any]:
    """Find the width that gives a policy as many parameters as a reference model has.

    :param observation_space: what the policy observes, where that is not what the reference does.
    :return: ``net_arch`` of two hidden layers, or ``lstm_hidden_size`` where the policy has a memory.
    """
    wanted = n_parameters(reference.policy)
    observed = reference.observation_space if observation_space is None else observation_space
    has_memory = "lstm_hidden_size" in inspect.signature(policy).parameters
    # Orthogonal initialisation takes its time, and counting needs none.
    uninitialised = dict(ortho_init=False) if issubclass(policy, ActorCriticPolicy) else {}

    def sized(width: int) -> dict[str, Any]:
        return dict(lstm_hidden_size=width) if has_memory else dict(net_arch=[width, width])

    def count(width: int) -> int:
        kwargs: dict[str, Any] = policy_kwargs | uninitialised | sized(width)
        made = policy(observed, reference.action_space, lambda _: 0.0, **kwargs)
        return n_parameters(made)

    low, high = 1, 2
    while count(high) < wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if count(middle) >= wanted else (middle, high)
    return sized(min((low, high), key=lambda w: abs(count(w) - wanted)))


def _reference(agent: AgentSpec) -> AgentSpec:
    """Read the recipe whose number of parameters another one is given, and which is given nobody's itself."""
    reference = agent_spec(agent.definition.match_parameters or "")
    if reference.definition.match_parameters is not None:
        raise ValueError(
            f"match_parameters: {reference.name!r} has 'match_parameters' itself, "
            f"{reference.definition.match_parameters!r}: name a recipe whose sizes are its own"
        )
    return reference


def _hyperparameters(algorithm: type[BaseAlgorithm], table: dict[str, Any]) -> dict[str, Any]:
    """Make keyword arguments of an algorithm from what a recipe says of them."""
    for name in table:
        if name in GIVEN:
            raise ValueError(f"{name!r} is no hyperparameter of a recipe: {GIVEN[name]}")
    given = with_classes(table)
    own = {"learning_rate": _schedule, "action_noise": _std}
    checked = {name: read(given[name]) for name, read in own.items() if name in given}
    rest = {name: value for name, value in given.items() if name not in checked}
    return arguments(algorithm, rest, "hyperparameters", also=checked, hidden=GIVEN)


def _schedule(learning_rate: float | str) -> float | Schedule:
    """Read a learning rate as RL Zoo writes it: a number, or ``"lin_1e-3"`` for one that falls linearly to zero."""
    if not isinstance(learning_rate, int | float):
        kind, _, initial = str(learning_rate).partition("_")
        try:
            if kind == "lin":
                return LinearSchedule(float(initial), 0.0, 1.0)
        except ValueError:
            pass
        raise ValueError(
            f"learning_rate must be a number, or such as 'lin_1e-3' to fall linearly, got {learning_rate!r}"
        )
    return learning_rate


def _std(std: float) -> float:
    if not isinstance(std, int | float) or not 0 <= std < float("inf"):
        raise ValueError(f"action_noise must be a standard deviation, got {std!r}")
    return std


def _normalized(space: Any) -> list[str]:
    """Name the entries of a Dict observation that are numbers to standardise: not the context, which has units."""
    return [
        name
        for name, entry in space.spaces.items()
        if name != "context" and isinstance(entry, spaces.Box) and not is_image_space(entry)
    ]


def _noise(std: float, vec_env: VecEnv) -> NormalActionNoise:
    """Make the exploration noise of TD3 and DDPG from its standard deviation, actions being scaled to [-1, 1]."""
    shape = vec_env.action_space.shape or ()
    return NormalActionNoise(np.zeros(shape), np.full(shape, float(std)))
