"""What training has made of a model, as numbers alone: a recipe's model and this file are the trained model.

Reading one unpickles nothing and runs nothing that the file holds. It has the parameters of the networks and of the
optimisers, the variables that Stable-Baselines3 saves beside them, the statistics of ``VecNormalize`` and the model's
counters. Replay buffers, generators of random numbers and the episode under way are no part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import ArrayLike
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor
from torch.optim import Optimizer

from hyperrl.families.family import Family
from hyperrl.training.models import build
from hyperrl.training.recipe import AgentSpec
from hyperrl.utils.tensors import read_tensors, write_tensors

SIZES: Final = ("net_arch", "lstm_hidden_size")
"""What ``match_parameters`` sets. The file keeps it: the recipe that it names may have changed since."""
NUMBERS: Final = (bool, int, float)


@dataclass(frozen=True)
class ModelRecord:
    """What ``model.safetensors`` says beside its tensors.

    :param numbers: the model's attributes that are numbers, such as ``num_timesteps``.
    :param optimizers: optimiser = for each group of parameters its settings that are numbers, such as ``lr``; empty
        where the file has no optimisers.
    :param states: ``"optimizer/parameter/name"`` = what an optimiser keeps of a parameter, where it is no tensor.
    :param sizes: the policy's arguments that ``match_parameters`` set.
    """

    SCHEMA: ClassVar[str] = "model-2"

    numbers: Mapping[str, Any]
    optimizers: Mapping[str, tuple[Mapping[str, Any], ...]]
    states: Mapping[str, Any]
    sizes: Mapping[str, Any]


def save_weights(model: BaseAlgorithm, agent: AgentSpec, path: str | Path, optimizers: bool = True) -> None:
    """Write what training has made of a model to a safetensors file.

    :param agent: the recipe that the model was built from.
    :param optimizers: write what the optimisers keep, for which a model acts alike but learns on from another point.
    """
    tensors, states, groups = _learnt(model), {}, {}
    for name, optimizer in _optimizers(model).items() if optimizers else ():
        state = optimizer.state_dict()
        groups[name] = tuple(
            {key: value for key, value in group.items() if type(value) in NUMBERS} for group in state["param_groups"]
        )
        for i, kept in state["state"].items():
            for key, value in kept.items():
                (tensors if isinstance(value, Tensor) else states)[f"{name}/{i}/{key}"] = value
    for name, statistics in _statistics(model).items():
        for key, value in vars(statistics).items():
            tensors[f"{name}/{key}"] = torch.as_tensor(value, dtype=torch.float64)
    excluded = model._excluded_save_params()
    numbers = {key: v for key, v in vars(model).items() if type(v) in NUMBERS and key not in excluded}
    matched = SIZES if agent.definition.match_parameters is not None else ()
    sizes = {key: model.policy_kwargs[key] for key in matched if key in model.policy_kwargs}
    write_tensors(path, tensors, ModelRecord(numbers, groups, states, sizes))


def load_weights(
    path: str | Path,
    family: Family,
    agent: AgentSpec,
    seed: int,
    contexts: int | ArrayLike | None = None,
    device: str = "auto",
) -> BaseAlgorithm:
    """Build the model of a recipe, and give it what :func:`save_weights` wrote.

    The model has environments of its own, which begin new episodes.

    :param family: what it was trained on, as are the other arguments; see :func:`~hyperrl.training.models.build`.
    :raises ValueError: where the file is not there, damaged or of another model; the message names it.
    """
    tensors, record = read_tensors(ModelRecord, path)
    definition = agent.definition
    if unknown := sorted(set(record.sizes) - set(SIZES)):
        raise ValueError(f"{path}: expected sizes {list(SIZES)}, got {unknown}")
    sized = definition.policy_kwargs | dict(record.sizes)
    definition = replace(definition, match_parameters=None, policy_kwargs=sized)
    model = build(family, replace(agent, definition=definition), seed, contexts, device)
    try:
        _restore(model, tensors, record)
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path} does not fit the recipe {agent.source}: {error}") from None
    return model


def _restore(model: BaseAlgorithm, tensors: dict[str, Tensor], record: ModelRecord) -> None:
    statistics, learnt, optimizers = _statistics(model), _learnt(model), _optimizers(model)
    expected = {name: (tensor.dtype, tensor.shape) for name, tensor in learnt.items()}
    for name, running in statistics.items():
        expected |= {f"{name}/{key}": (torch.float64, np.shape(value)) for key, value in vars(running).items()}
    kept: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in optimizers}
    for name in [name for name in tensors if name.partition("/")[0] in optimizers]:
        optimizer, i, key = name.split("/")
        kept[optimizer].setdefault(int(i), {})[key] = tensors.pop(name)
    for name, value in record.states.items():
        optimizer, i, key = name.split("/")
        kept[optimizer].setdefault(int(i), {})[key] = value
    got = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    for name in (*expected, *got):
        if got.get(name) != expected.get(name):
            raise ValueError(f"expected {name!r} to be {expected.get(name)}, got {got.get(name)}")
    with torch.no_grad():
        for name, tensor in learnt.items():
            tensor.copy_(tensors[name])
    for name, optimizer in optimizers.items() if record.optimizers else ():
        groups: list[dict[str, Any]] = optimizer.state_dict()["param_groups"]
        for group, numbers in zip(groups, record.optimizers[name], strict=True):
            group.update({key: value for key, value in numbers.items() if type(group[key]) in NUMBERS})
        optimizer.load_state_dict({"state": kept[name], "param_groups": groups})
    for name, running in statistics.items():
        values = {key: tensors[f"{name}/{key}"].numpy() for key in vars(running)}
        running.mean, running.var, running.count = values["mean"], values["var"], float(values["count"])
    for name, value in record.numbers.items():
        if type(getattr(model, name, None)) not in NUMBERS or type(value) not in NUMBERS:
            raise ValueError(f"{name!r} is no number of a {type(model).__name__}")
        setattr(model, name, value)
    if getattr(model, "use_sde", False):
        model.policy.reset_noise()  # pyright: ignore[reportCallIssue]


def _learnt(model: BaseAlgorithm) -> dict[str, Tensor]:
    """Return the tensors of the networks, and of the variables beside them, by name; they are the model's own."""
    modules, variables = model._get_torch_save_params()
    optimizers = _optimizers(model)
    tensors = {
        f"{name}/{key}": tensor
        for name in modules
        if name not in optimizers
        for key, tensor in attrgetter(name)(model).state_dict().items()
    }
    beside = {f"variables/{name}": attrgetter(name)(model) for name in variables}
    return tensors | {name: tensor.detach() for name, tensor in beside.items() if tensor is not None}


def _optimizers(model: BaseAlgorithm) -> dict[str, Optimizer]:
    """Return the optimisers that Stable-Baselines3 saves, by name."""
    found = {name: attrgetter(name)(model) for name in model._get_torch_save_params()[0]}
    return {name: optimizer for name, optimizer in found.items() if isinstance(optimizer, Optimizer)}


def _statistics(model: BaseAlgorithm) -> dict[str, RunningMeanStd]:
    """Return the running statistics of the ``VecNormalize`` around the model's environments, by name."""
    normalizer: VecNormalize | None = model.get_vec_normalize_env()
    if normalizer is None:
        return {}
    found = {"normalizer/returns": normalizer.ret_rms}
    if normalizer.norm_obs:
        observed: Any = normalizer.obs_rms
        entries = observed if isinstance(observed, dict) else {"": observed}
        found |= {f"normalizer/observations/{key}": running for key, running in entries.items()}
    return found
