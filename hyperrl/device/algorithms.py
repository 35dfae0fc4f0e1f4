"""Which algorithm of Stable-Baselines3 each one on a device stands for."""

from __future__ import annotations

from typing import Any, Final

from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm

from hyperrl.device.ppo import DevicePPO
from hyperrl.device.sac import DeviceSAC

ON_DEVICE: Final[dict[type[BaseAlgorithm], Any]] = {PPO: DevicePPO, SAC: DeviceSAC}
"""The algorithms that stand for Stable-Baselines3's own."""


def plain_algorithm(model: BaseAlgorithm) -> type[BaseAlgorithm]:
    """Return the class of a model, for those on a device the one of Stable-Baselines3 whose zips they share."""
    return next((plain for plain, cls in ON_DEVICE.items() if isinstance(model, cls)), type(model))
