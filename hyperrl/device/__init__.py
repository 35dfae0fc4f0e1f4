"""PPO whose rollouts, buffer and updates are tensors on one device: Stable-Baselines3's in everything else."""

from typing import TYPE_CHECKING

from hyperrl.utils.lazy import attach

if TYPE_CHECKING:
    from hyperrl.device.ppo import DevicePPO as DevicePPO

__getattr__, __dir__ = attach(__name__, {"ppo": ("DevicePPO",)})
