"""Models that Stable-Baselines3 saved, whoever trained them. Reading one unpickles, which can run any code."""

from __future__ import annotations

import inspect
import pickle
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperrl.policies.registry import REGISTRY, algorithm_class, find, serves

if TYPE_CHECKING:
    import torch
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.vec_env import VecEnv, VecNormalize


def load_model(
    path: str | Path, algorithm: str | None = None, device: str | torch.device = "auto", env: VecEnv | None = None
) -> BaseAlgorithm:
    """Load a model from a zip of Stable-Baselines3's. This unpickles what is in it: load only what you trust.

    :param path: the zip.
    :param algorithm: which one trained it, as recipes name it; by default it is found from what the zip holds.
    :param device: where the networks are.
    :param env: environments to act in, as SB3's ``load`` takes them.
    :raises ValueError: where there is no such file, it is no such zip or damaged, and where the algorithm cannot be
        found, or is another.

    >>> import tempfile
    >>> from stable_baselines3 import PPO
    >>> from hyperrl import HyperPolicy, load_family
    >>> path = Path(tempfile.mkdtemp()) / "agent.zip"
    >>> PPO(HyperPolicy, load_family("pendulum").vec_env(2), device="cpu").save(path)
    >>> type(load_model(path)).__name__
    'PPO'
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no such file: {path}")
    if algorithm is None:
        cls = _find_algorithm(path, _read(path))
    else:
        cls = find(algorithm) if algorithm in REGISTRY else algorithm_class(algorithm)
        _read(path)
    try:
        return cls.load(path, env=env, device=device)
    except Exception as error:  # whatever a damaged file, or one of another algorithm, leads to
        raise ValueError(f"{path}: {cls.__name__} cannot load it ({type(error).__name__}: {error})") from error


def load_normalizer(path: str | Path, env: VecEnv) -> VecNormalize:
    """Load the statistics of a ``VecNormalize``. This unpickles the file: load only what you trust.

    :param path: the file that ``VecNormalize.save`` wrote.
    :param env: environments of the same spaces, perhaps without the last action and reward: they are added then.
    :raises ValueError: where there is no such file, or it is damaged.
    """
    from hyperrl.simulation.last_step import VecLastStep, observes_last_step

    if not Path(path).is_file():
        raise ValueError(f"no such file: {path}")
    try:
        normalizer: VecNormalize = pickle.loads(Path(path).read_bytes())
        if observes_last_step(normalizer.observation_space) and not observes_last_step(env.observation_space):
            env = VecLastStep(env)
        normalizer.set_venv(env)
        return normalizer
    except Exception as error:  # unpickling a damaged file can raise anything
        raise ValueError(f"{path}: no VecNormalize of these environments ({type(error).__name__}: {error})") from error


def _read(path: Path) -> dict[str, Any]:
    """Read what a zip holds beside its parameters."""
    from stable_baselines3.common.save_util import load_from_zip_file

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            data, *_ = load_from_zip_file(path, device="cpu")
    except ImportError as error:
        raise ValueError(f"{path}: a class that it names cannot be imported: {error}") from None
    except Exception as error:  # unpickling a damaged file can raise anything
        raise ValueError(f"{path}: no model that Stable-Baselines3 saved, or damaged ({error})") from error
    if data is None or "observation_space" not in data:
        raise ValueError(f"{path}: no model that Stable-Baselines3 saved: it has no description of one")
    if not isinstance(data.get("policy_class"), type):
        reasons = [str(warning.message) for warning in caught if "policy_class" in str(warning.message)]
        reason = reasons[0].splitlines()[-1] if reasons else "it names none"
        raise ValueError(f"{path}: the class of its policy cannot be imported: {reason}")
    return data


def _find_algorithm(path: Path, data: dict[str, Any]) -> type[BaseAlgorithm]:
    """Find the algorithm that a model is of: one that its policy serves, with the hyperparameters that it has."""
    policy = data["policy_class"]
    fits = []
    for name in REGISTRY:
        algorithm = find(name)
        own = {cls for cls in algorithm.policy_aliases.values() if isinstance(cls, type)}
        distance = next((i for i, cls in enumerate(policy.__mro__) if cls in own), None)
        if name in serves(policy):
            distance = 0
        if distance is not None:
            hyperparameters = inspect.signature(algorithm).parameters
            known = sum(1 if parameter in data else -1 for parameter in hyperparameters)
            fits.append((-distance, known, algorithm))
    if not fits:
        raise ValueError(
            f"{path}: its policy, {policy.__module__}.{policy.__qualname__}, does not tell its algorithm: "
            "name it, such as --algorithm sb3_contrib:MaskablePPO"
        )
    return max(fits, key=lambda fit: fit[:2])[2]
