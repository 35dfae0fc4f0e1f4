"""The context in an observation: found, normalised, and kept apart from everything else that is observed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from hyperrl.contexts import ContextBox, ContextSpace, Vector
from hyperrl.hypernet import is_static
from hyperrl.policies.acting import ActingNetwork
from hyperrl.policies.registry import who_serves_whom
from hyperrl.utils.errors import nearest

PARTS_OF_POLICIES: Final = frozenset(
    (
        *("actor", "actor_target", "critic", "critic_target", "q_net", "q_net_target"),
        *(
            "quantile_net",
            "quantile_net_target",
            "evaluate_actions",
            "predict_values",
            "get_distribution",
            "lstm_actor",
        ),
    )
)
"""What algorithms take from policies, each something else."""


class ContextReader(nn.Module):
    """Finds the context in observations and normalises it.

    The training range becomes [-1, 1]: the one that a :class:`~hyperrl.contexts.ContextBox` carries, else the bounds
    of the ``Box``, where it has any. It has nothing to learn, and no part in the state dict.

    :param observation_space: a Dict with a one-dimensional ``Box`` as context, or a flat ``Box``.
    :param key: name of the context in a Dict observation.
    :param slice_: ``(start, stop)`` of the context in a flat observation.
    :raises ValueError: where no context is found.

    >>> observation_space = spaces.Dict(position=spaces.Box(-1, 1, (3,)), context=spaces.Box(0, 10, (2,)))
    >>> reader = ContextReader(observation_space)
    >>> reader({"position": torch.zeros(1, 3), "context": torch.tensor([[0.0, 7.5]])})
    tensor([[-1.0000,  0.5000]])
    """

    center: Tensor  # (d,)
    half_width: Tensor  # (d,)

    def __init__(
        self, observation_space: spaces.Space[Any], key: str = "context", slice_: tuple[int, int | None] | None = None
    ) -> None:
        super().__init__()
        self.key: Final = key
        self.slice: Final = slice(*slice_) if slice_ is not None else None
        self.box, self.other_space = split_space(observation_space, key, slice_)
        center, half_width = _scale_of(self.box)
        # Not in the state dict: they follow from the observation space, and target networks copy only what is learnt.
        self.register_buffer("center", torch.as_tensor(center, dtype=torch.float32), persistent=False)
        self.register_buffer("half_width", torch.as_tensor(half_width, dtype=torch.float32), persistent=False)
        self._is_checked = False

    @property
    def dim(self) -> int:
        """The number of features d."""
        return len(self.center)

    def forward(self, obs: PyTorchObs) -> Tensor:
        """Return the normalised context, shape ``(B, d)``."""
        context = obs[self.key] if isinstance(obs, dict) else obs[:, self.slice]
        if not self._is_checked:
            self._check(context)
        return self.normalize(context)

    def normalize(self, contexts: Tensor) -> Tensor:
        """Return contexts in physical units normalised, ``(..., d) -> (..., d)``; they are rounded to float32."""
        return (contexts.float() - self.center) / self.half_width

    def others(self, obs: PyTorchObs) -> PyTorchObs:
        """Return the observation without the context."""
        if isinstance(obs, dict):
            return {key: value for key, value in obs.items() if key != self.key}
        start, stop, _ = self.slice.indices(obs.shape[1])  # pyright: ignore[reportOptionalMemberAccess]
        return torch.cat([obs[:, :start], obs[:, stop:]], dim=1)

    def _check(self, context: Tensor) -> None:
        """Warn, once, about a context that is out of bounds: ``VecNormalize`` does that."""
        if is_static() or torch.compiler.is_compiling():  # values are unavailable
            return
        self._is_checked = True
        if not isinstance(self.box, ContextBox):
            return
        low, high = self.box.low, self.box.high
        rows = context.detach().cpu().numpy()
        if not ((low <= rows) & (rows <= high)).all():
            warnings.warn(
                f"the context lies outside its bounds {low} to {high}, for example {rows[0]}. The policy normalises "
                "the context itself and needs physical units: if this is VecNormalize, give it norm_obs_keys with the "
                f"names of the other entries, without {self.key!r}.",
                stacklevel=2,
            )


class ContextExtractor(BaseFeaturesExtractor):
    """Features of everything but the context by an ordinary features extractor, then the normalised context.

    With it, any policy of Stable-Baselines3 is a baseline: one that gets the context as extra inputs or, without
    ``include_context``, one that does not see it. Where images are normalised already (``normalize_images=False``),
    SB3 tells its own extractors only: give ``extractor_kwargs=dict(normalized_image=True)``.

    :param observation_space: a Dict with a one-dimensional ``Box`` as context, or a flat ``Box``.
    :param context_key: name of the context in a Dict observation.
    :param context_slice: ``(start, stop)`` of the context in a flat observation, such as ``(-4, None)``.
    :param include_context: append the context.
    :param extractor_class: the ordinary features extractor; SB3's usual one by default.
    :param extractor_kwargs: its keyword arguments.
    :raises ValueError: where no context is found.

    >>> from stable_baselines3 import SAC
    >>> from hyperrl import load_family
    >>> policy_kwargs = dict(features_extractor_class=ContextExtractor)
    >>> model = SAC("MultiInputPolicy", load_family("pendulum").vec_env(2), policy_kwargs=policy_kwargs)
    >>> model.actor.features_extractor.features_dim  # three of the pendulum, four of the context
    7
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        context_key: str = "context",
        context_slice: tuple[int, int | None] | None = None,
        include_context: bool = True,
        extractor_class: type[BaseFeaturesExtractor] | None = None,
        extractor_kwargs: dict[str, Any] | None = None,
    ) -> None:
        reader = ContextReader(observation_space, context_key, context_slice)
        make = extractor_class or usual_extractor(reader.other_space)
        extractor = make(reader.other_space, **(extractor_kwargs or {}))
        super().__init__(observation_space, extractor.features_dim + include_context * reader.dim)
        self.reader = reader
        self.extractor = extractor
        self.include_context: Final = include_context

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the ordinary features extractor, as a stock policy's ``features_extractor`` has it."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "extractor" or name.startswith("__"):
                raise
            return getattr(self.extractor, name)

    def forward(self, observations: PyTorchObs) -> Tensor:
        """Return ``(B, n)`` features, or with the context ``(B, n + d)``."""
        features = self.extractor(self.reader.others(observations))
        return torch.cat([features, self.reader(observations)], dim=1) if self.include_context else features


class ContextPolicy(BasePolicy):
    """What the policies of this package add to those of Stable-Baselines3, to be inherited before one of them.

    The entry ``context_key`` of a Dict observation is the context; every other entry goes through SB3's features
    extractor. On a flat observation, ``context_slice`` names the entries that are context. The context is
    normalised so that its training range becomes [-1, 1]: see :class:`ContextReader`.

    :param observation_space: a Dict with a one-dimensional ``Box`` as context, or a flat ``Box``.
    :param action_space: one that the algorithm serves.
    :param lr_schedule: learning rate as a function of the remaining progress.
    :param context_key: name of the context in a Dict observation.
    :param context_slice: ``(start, stop)`` of the context in a flat observation, such as ``(-4, None)``.
    :param features_extractor_class: features extractor of the other entries; SB3's usual one by default.
    :param kwargs: keyword arguments of SB3's policy.
    :raises ValueError: where no context is found, and for keyword arguments that make no sense here.

    SB3 does not tell a policy which algorithm it is for. A policy that is given to the wrong algorithm says so when the
    algorithm asks for a part that the policy lacks, or passes an argument that it does not know; in most cases that is
    when the algorithm is made. These are noticed later, by an error of SB3's in training: a policy for SAC, TQC or
    CrossQ given to PPO, A2C or TRPO; one for SAC, TD3 or TQC given to another of SAC, TQC and CrossQ;
    ``HyperPolicy`` given to CrossQ.
    """

    include_context: ClassVar[bool]
    """Whether features are followed by the context."""

    share_features_extractor: bool

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        context_key: str = "context",
        context_slice: tuple[int, int | None] | None = None,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        **kwargs: Any,
    ) -> None:
        # SB3's constructor calls back into the methods below, which need these.
        self.context_key = context_key
        self.context_slice = None if context_slice is None else tuple(context_slice)
        self.context_box, self.other_space = split_space(observation_space, context_key, context_slice)
        kwargs["features_extractor_class"] = features_extractor_class or usual_extractor(self.other_space)
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    @property
    def context_space(self) -> ContextSpace | None:
        """The features, units and ranges of the context, where the observation space carried them."""
        return self.context_box.context_space if isinstance(self.context_box, ContextBox) else None

    def novelty(self, contexts: ArrayLike | Mapping[str, float]) -> Vector:
        """Return how far contexts lie outside the training range, in widths of it, by the farthest feature.

        It is 0 inside the range; see :meth:`ContextSpace.beyond <hyperrl.ContextSpace.beyond>`. ``hyperrl evaluate``
        says how well it foretells a loss of return.

        :param contexts: physical units, shape ``(n, d)`` or ``(d,)``, or one as a mapping from names to values.
        :return: shape ``(n,)``; ``n`` is 1 for a single context.
        :raises ValueError: for a wrong shape, a context that is out of bounds, or an observation space that carries
            no training range.

        >>> from stable_baselines3 import PPO
        >>> from hyperrl import HyperPolicy, load_family
        >>> model = PPO(HyperPolicy, load_family("pendulum").vec_env(2))
        >>> model.policy.novelty({"length": 1.3, "mass": 1.1}).round(3)
        array([0.25])
        """
        space = self.context_space
        if space is None:
            raise ValueError(
                f"novelty needs the training range of the context, but the entry {self.context_key!r} of the "
                f"observation is {self.context_box}: make it a hyperrl.contexts.ContextBox"
            )
        if isinstance(contexts, Mapping) or np.ndim(contexts) == 1:
            rows = space.vector(contexts)[None]
        else:
            rows = space.matrix(contexts)
        return space.beyond(rows).max(axis=1)

    def make_features_extractor(self) -> ContextExtractor:
        """Make a features extractor that keeps the context apart."""
        return ContextExtractor(
            self.observation_space,
            self.context_key,
            self.context_slice,  # pyright: ignore[reportArgumentType]
            self.include_context,
            self.features_extractor_class,
            self.features_extractor_kwargs,
        )

    def _build(self, lr_schedule: Schedule) -> None:
        # A generated network has many small parameters, and Adam's usual loop costs as much for a small one as for a
        # large one: one kernel for all of them takes a third of the time.
        is_adam = issubclass(self.optimizer_class, (torch.optim.Adam, torch.optim.AdamW))
        if is_adam and self.optimizer_kwargs.keys().isdisjoint({"fused", "foreach", "differentiable"}):
            self.optimizer_kwargs = self.optimizer_kwargs | dict(fused=True)
        super()._build(lr_schedule)  # pyright: ignore[reportAttributeAccessIssue]

    def plain_state(self, context: Tensor) -> dict[str, Tensor]:
        """Return the state dict of SB3's own policy that acts as this one does in one context.

        Features extractors are still those of contexts too, and layers that get the context as an input keep its
        columns: :func:`hyperrl.specialize` does the rest, as for SB3's own policies.

        :param context: normalised, shape ``(d,)``.
        :raises ValueError: where no policy of SB3's does the same.
        """
        return self.state_dict()

    def acting_network(self) -> ActingNetwork:
        """Return what computes the deterministic actions: parts of this policy, not copies."""
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        """Say what is wrong where an algorithm asks for a part that the policy of another algorithm lacks."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name not in PARTS_OF_POLICIES:
                raise
            raise AttributeError(
                f"{type(self).__name__} has no {name!r}, which the algorithm that it is given to asks for. "
                f"{who_serves_whom(type(self))}"
            ) from None

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        if hasattr(self, "share_features_extractor"):  # most of SB3's policies forget it
            data["share_features_extractor"] = self.share_features_extractor
        return data | dict(context_key=self.context_key, context_slice=self.context_slice)


def context_extractor(policy: nn.Module) -> ContextExtractor | None:
    """Find what a policy, of this package or of SB3's, reads the context with."""
    return next((module for module in policy.modules() if isinstance(module, ContextExtractor)), None)


def usual_extractor(space: spaces.Space[Any]) -> type[BaseFeaturesExtractor]:
    """Return the features extractor that SB3 takes where none is asked for."""
    return CombinedExtractor if isinstance(space, spaces.Dict) else FlattenExtractor


def split_space(
    space: spaces.Space[Any], key: str, context_slice: tuple[int, int | None] | None
) -> tuple[spaces.Box, spaces.Space[Any]]:
    """Divide an observation space into the context and everything else."""
    if isinstance(space, spaces.Dict):
        if context_slice is not None:
            raise ValueError("context_slice is for flat observations; this one is a Dict, so give context_key instead")
        if key not in space.spaces:
            raise ValueError(
                f"the observation has no entry {key!r}: its entries are {list(space.spaces)}."
                f"{nearest(key, space.spaces)} "
                "Name the context by policy_kwargs=dict(context_key=...)"
            )
        context = space.spaces[key]
        others = {name: entry for name, entry in space.spaces.items() if name != key}
        if not others:
            raise ValueError(f"the observation has no entry besides the context {key!r}, so there is nothing to act on")
        other: spaces.Space[Any] = spaces.Dict(others)
    elif isinstance(space, spaces.Box) and len(space.shape) == 1:
        if context_slice is None:
            raise ValueError(
                f"the observation is flat, of shape {space.shape}: say which entries are context, such as "
                "policy_kwargs=dict(context_slice=(-4, None)) for the last four"
            )
        start, stop, _ = slice(*context_slice).indices(space.shape[0])
        if not 0 < stop - start < space.shape[0]:
            raise ValueError(
                f"context_slice={context_slice} takes {max(stop - start, 0)} of the observation's {space.shape[0]} "
                "entries: it must leave some for either part"
            )
        context = spaces.Box(space.low[start:stop], space.high[start:stop], dtype=space.dtype.type)
        rest = np.r_[0:start, stop : space.shape[0]]
        other = spaces.Box(space.low[rest], space.high[rest], dtype=space.dtype.type)
    else:
        raise ValueError(f"expected a Dict observation with a context, or a flat Box, got {space}")
    if not isinstance(context, spaces.Box) or len(context.shape) != 1 or not np.issubdtype(context.dtype, np.floating):
        raise ValueError(f"the context must be a one-dimensional Box of floats, got {context}")
    return context, other


def center_and_half_width(box: spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    """Return the middle of a box and half of its width, float64 ``(d,)`` each; 0 and infinite where it has no bounds.

    >>> center_and_half_width(spaces.Box(np.array([-1.0, -np.inf]), np.array([3.0, np.inf]), dtype=np.float64))
    (array([1., 0.]), array([ 2., inf]))
    """
    low, high = box.low.ravel().astype(np.float64), box.high.ravel().astype(np.float64)
    # Half of the largest float and more is how some environments write "unbounded".
    is_bounded = np.maximum(np.abs(low), np.abs(high)) < 1e30
    low, high = np.where(is_bounded, low, 0.0), np.where(is_bounded, high, 0.0)
    return (low + high) / 2, np.where(is_bounded, (high - low) / 2, np.inf)


def _scale_of(box: spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    """Say what normalises a context: the training range it carries, else its bounds, else nothing."""
    if isinstance(box, ContextBox):
        return box.context_space.center_and_half_width
    center, half_width = center_and_half_width(box)
    return center, np.where(np.isfinite(half_width) & (half_width > 0), half_width, 1.0)
