"""PPO and SAC whose updates are recorded and replayed on one device: Stable-Baselines3's in everything else."""

from typing import TYPE_CHECKING

from hyperrl.utils.lazy import attach

if TYPE_CHECKING:
    from hyperrl.device.ppo import DevicePPO as DevicePPO
    from hyperrl.device.sac import DeviceSAC as DeviceSAC

__getattr__, __dir__ = attach(__name__, {"ppo": ("DevicePPO",), "sac": ("DeviceSAC",)})
