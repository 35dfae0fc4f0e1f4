"""Engines that step many environments at once as tensors, and the adapters that offer them to SB3 and Gymnasium."""

from typing import TYPE_CHECKING

from hyperrl.utils.lazy import attach

if TYPE_CHECKING:
    from hyperrl.simulation.last_step import VecLastStep as VecLastStep
    from hyperrl.simulation.physics_env import PhysicsEnv as PhysicsEnv
    from hyperrl.simulation.simulator import Simulator as Simulator
    from hyperrl.simulation.simulator import Step as Step
    from hyperrl.simulation.tensor_env import TensorVecEnv as TensorVecEnv
    from hyperrl.simulation.tensor_env import find_tensor_env as find_tensor_env
    from hyperrl.simulation.tensor_env import has_tensors as has_tensors
    from hyperrl.simulation.vec_env import BatchedVecEnv as BatchedVecEnv
    from hyperrl.simulation.vector_env import BatchedVectorEnv as BatchedVectorEnv

__getattr__, __dir__ = attach(
    __name__,
    {
        "simulator": ("Simulator", "Step"),
        "physics_env": ("PhysicsEnv",),
        "last_step": ("VecLastStep",),
        "tensor_env": ("TensorVecEnv", "find_tensor_env", "has_tensors"),
        "vec_env": ("BatchedVecEnv",),
        "vector_env": ("BatchedVectorEnv",),
    },
)
