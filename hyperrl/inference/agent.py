"""Agents that infer their context: a model that was trained with its context known, and an estimator of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from hyperrl.contexts import ContextBox, ContextSpace
from hyperrl.inference.beliefs import Belief
from hyperrl.inference.estimator import Estimator
from hyperrl.inference.record import EstimatorRecord, Learning
from hyperrl.policies import HyperPolicy
from hyperrl.policies.context import ContextReader, context_extractor
from hyperrl.rollouts.agent import Agent
from hyperrl.simulation.last_step import SOLE
from hyperrl.utils.devices import find_device
from hyperrl.utils.files import refuse_existing
from hyperrl.utils.rows import encode
from hyperrl.utils.tensors import read_tensors, write_tensors

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm


class Memory(NamedTuple):
    """What an agent remembers of the episodes under way in ``n`` environments."""

    state: NDArray[np.float32]
    """Of the estimator, shape ``(n, s)``."""
    outputs: NDArray[np.float32]
    """The estimator's outputs at the last step, shape ``(n, m)``."""
    model: Any
    """Of the model, where that is a recurrent one."""


class InferringAgent:
    """A model that is given, at each step, the context that an estimator believes in.

    It acts as a Stable-Baselines3 model does. The entry of the context in what it observes, if there is one, is never
    read.

    :param model: a model that reads its context.
    :param estimator: an estimator of that context.
    :param learning: how it was learnt, where that is known.
    :raises ValueError: where the model reads no context, or one of other features than the estimator infers.

    >>> import tempfile
    >>> from stable_baselines3 import PPO
    >>> from hyperrl import HyperPolicy, infer_context, load_family
    >>> family = load_family("double_integrator")
    >>> model = PPO(HyperPolicy, family.vec_env(2), device="cpu")
    >>> path = Path(tempfile.mkdtemp()) / "estimator.safetensors"
    >>> infer_context(model, family, steps=1).save(path)
    >>> agent = InferringAgent.load(path, model)
    >>> agent.predict(np.zeros((5, 4)))[0].shape
    (5, 2)
    """

    def __init__(self, model: BaseAlgorithm, estimator: Estimator, learning: Learning | None = None) -> None:
        self.reader = reader_of(model)
        check_features(self.reader, estimator.context_space)
        self.model = model
        self.estimator = estimator
        self.learning = learning
        self.observation_space: spaces.Space[Any] = self.reader.other_space
        """What it observes: the model's observation without the context."""
        self.action_space: spaces.Space[Any] = model.action_space
        self.told: NDArray[np.floating[Any]] | None = None
        """The context that the model is given in place of the inferred one, ``(d,)`` or a row for each environment.
        Inference goes on, so that :meth:`belief` says what it would have been given."""
        key, others = self.reader.key, self.observation_space
        entries = dict(others.spaces) if isinstance(others, spaces.Dict) else {SOLE: others}
        whole = spaces.Dict({**entries, key: self.reader.box})
        self._agent = Agent(model, whole, np.zeros(self.reader.dim), context_key=key)

    def predict(
        self,
        observation: Any,
        state: Memory | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        reward: NDArray[np.floating[Any]] | None = None,
    ) -> tuple[np.ndarray, Memory]:
        """Return the actions and the memory for the next call.

        :param observation: what ``n`` environments observe, with or without their context; or what one observes.
        :param state: what the last call returned; ``None`` where all episodes begin.
        :param episode_start: where an episode begins, shape ``(n,)``; nowhere by default.
        :param deterministic: take the most likely actions rather than samples.
        :param reward: of the last step, shape ``(n,)``; NaN, or ``None``, where it is unknown.
        """
        observed = self._without_context(observation)
        alone = self._is_alone(observed)
        if alone:
            observed = {k: v[None] for k, v in observed.items()} if isinstance(observed, dict) else observed[None]
        rows = encode(self.estimator.observation_space, observed)
        n = len(rows)
        starts = np.zeros(n, dtype=bool) if episode_start is None else np.asarray(episode_start, dtype=bool)
        if state is None:
            starts = np.ones(n, dtype=bool)
        memory, sums, outputs = self._infer(rows, None if state is None else state.state, starts, reward)
        agent = self._agent
        inferred = self.estimator.beliefs.context(outputs).cpu().numpy()
        agent.context = inferred if self.told is None else np.asarray(self.told, dtype=np.float32)
        agent.deterministic = deterministic
        agent.memory = None if state is None else state.model
        actions = agent.act(observed if isinstance(observed, dict) else {SOLE: observed}, starts)
        acted = encode(self.action_space, actions, scale=True)
        begun = np.ones((n, 1), dtype=np.float32)
        parts = (memory.cpu().numpy(), sums.cpu().numpy(), rows, acted, begun)
        after = Memory(np.concatenate(parts, axis=1), outputs.cpu().numpy(), agent.memory)
        return (actions[0] if alone else actions), after

    @torch.no_grad()
    def _infer(
        self,
        rows: NDArray[np.float32],
        state: NDArray[np.float32] | None,
        starts: NDArray[np.bool_],
        reward: NDArray[Any] | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the estimator's memory, sums and outputs after observations ``(n, o)``."""
        device = self.estimator.mean.device
        n = len(rows)
        before = np.zeros((n, self.estimator.size), dtype=np.float32) if state is None else state
        before = np.where(starts[:, None], np.float32(0), before)
        earned = np.full((n, 1), np.nan) if reward is None else np.reshape(reward, (n, 1))
        observed, earned, before = (
            torch.as_tensor(np.asarray(array, dtype=np.float32), device=device) for array in (rows, earned, before)
        )
        return self.estimator.step(observed, earned, before)

    def belief(self, state: Memory) -> Belief:
        """Return what it believed when it last acted, in physical units."""
        device = self.estimator.mean.device
        with torch.no_grad():
            return Belief(
                *(part.cpu() for part in self.estimator.beliefs(torch.as_tensor(state.outputs, device=device)))
            )

    def save(self, path: str | Path) -> None:
        """Write the estimator, not the model, to a new safetensors file; see :meth:`load`.

        :raises ValueError: where the file exists.
        """
        refuse_existing(path, "choose another file, or remove it")
        estimator = self.estimator
        features, bounds = estimator.context_space.features, estimator.beliefs.bounds
        record = EstimatorRecord(features, estimator.hidden, bounds, self.learning)
        write_tensors(path, estimator.state_dict(), record)

    @classmethod
    def load(cls, path: str | Path, model: BaseAlgorithm, device: str = "cpu") -> InferringAgent:
        """Read an estimator that :meth:`save` wrote, and give it to a model. Nothing in the file is ever run.

        :param device: where the estimator is: ``"cpu"``, ``"cuda"``, ``"auto"``.
        :raises ValueError: where the file cannot be read or is damaged, and where the estimator infers other features
            than the model reads, or from other observations or actions.
        """
        tensors, record = read_tensors(EstimatorRecord, path)
        reader = reader_of(model)
        space = ContextSpace(record.features)
        try:
            check_features(reader, space)
            action: Any = model.action_space
            if not 0 < record.hidden <= len(tensors["head.0.weight"]):
                raise ValueError(f"its memory is said to have {record.hidden} numbers")
            estimator = Estimator(reader.other_space, action, space, record.hidden, record.bounds)
            estimator.load_state_dict(tensors)
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no estimator for this model: {error}") from None
        return cls(model, estimator.to(find_device(device)).requires_grad_(False), record.learning)

    def _without_context(self, observation: Any) -> Any:
        """Return an observation without its context."""
        if isinstance(observation, dict):
            entries = {key: np.asarray(value) for key, value in observation.items() if key != self.reader.key}
            if isinstance(self.observation_space, spaces.Dict):
                return entries
            (sole,) = entries.values()
            return sole
        array = np.asarray(observation)
        if isinstance(self.observation_space, spaces.Dict):
            (key,) = self.observation_space.spaces
            return {key: array}
        where, width = self.reader.slice, self.observation_space.shape[0]  # pyright: ignore[reportOptionalSubscript]
        if where is not None and array.shape[-1] == width + self.reader.dim:
            return np.delete(array, np.arange(array.shape[-1])[where], axis=-1)
        return array

    def _is_alone(self, observed: Any) -> bool:
        """Say whether it is what one environment observes, without an axis of environments."""
        if isinstance(self.observation_space, spaces.Dict):
            key, space = next(iter(self.observation_space.spaces.items()))
            return observed[key].ndim == len(space.shape or ())
        return observed.ndim == len(self.observation_space.shape or ())


def reader_of(model: BaseAlgorithm) -> ContextReader:
    """Return what a model reads its context with.

    :raises ValueError: where it reads none.
    """
    extractor = context_extractor(model.policy)
    # A hypernetwork gets the context beside the features, every other network among them.
    if extractor is None or not (extractor.include_context or isinstance(model.policy, HyperPolicy)):
        raise ValueError(
            f"expected a model that reads its context, to infer that, got one with {type(model.policy).__name__} that "
            f"observes {model.observation_space}"
        )
    return extractor.reader


def check_features(reader: ContextReader, space: ContextSpace) -> None:
    """Refuse a model that reads other features than are to be inferred.

    :param reader: what the model reads its context with.
    :raises ValueError: with both lists.
    """
    box = reader.box
    if isinstance(box, ContextBox):
        if box != ContextBox(space):
            raise ValueError(f"expected a model that reads the features {ContextBox(space)}, got one that reads {box}")
    elif reader.dim != len(space):
        raise ValueError(f"expected a model that reads the {len(space)} features {list(space.names)}, got {reader.dim}")
