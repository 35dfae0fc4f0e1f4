"""Tasks of the DeepMind Control Suite (Tassa et al. 2018) as Gymnasium's environments.

Model, start, reward and observation of each are ``dm_control``'s own. ``import hyperrl`` registers some of them, as
``"ControlSuite/walker-walk-v0"`` and so on, whose episodes are cut off after 1,000 steps.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from hyperrl.physics.libmujoco import quiet
from hyperrl.utils.errors import nearest
from hyperrl.utils.extras import require


class SuiteEnv(gym.Env[np.ndarray, np.ndarray]):
    """One task of the suite. It never terminates.

    What is observed is flat, in the order of ``dm_control``.

    :param domain: such as ``"walker"``.
    :param task: such as ``"walk"``.
    :param render_mode: ``"rgb_array"`` or ``None``.
    :param angles: places in ``dm_control``'s observation of angles in rad, in ascending order. Each is observed as its
        cosine and sine, in its place. ``dm_control`` does not wrap them: a joint that has turned twice is at 4π.
    :raises ValueError: where ``dm_control`` is not installed, for a task that the suite has not, and for places that
        the observation has not.

    >>> import hyperrl
    >>> gym.spec("ControlSuite/walker-walk-v0").max_episode_steps
    1000
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012

    def __init__(self, domain: str, task: str, render_mode: str | None = None, angles: Sequence[int] = ()) -> None:
        require(f"the task {domain}-{task}", "dmc", "dm_control")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pictures, where there is no screen
            suite: Any = import_module("dm_control.suite")
        self.name = f"{domain}-{task}"
        tasks = [f"{known}-{of_it}" for known, of_it in suite.ALL_TASKS]
        if self.name not in tasks:
            raise ValueError(f"unknown task {self.name!r} of the suite.{nearest(self.name, tasks)}")
        with quiet():
            self.suite_env = suite.load(
                domain, task, task_kwargs={"time_limit": math.inf}, environment_kwargs={"flat_observation": True}
            )
        self.fullpath = str(Path(suite.__file__).with_name(f"{domain}.xml"))
        """The file of the model."""
        self.frame_skip = round(self.suite_env.control_timestep() / self.physics.timestep())
        """How often MuJoCo steps in a step."""
        self.render_mode = render_mode
        spec = self.suite_env.action_spec()
        self.action_space = spaces.Box(spec.minimum.astype(np.float32), spec.maximum.astype(np.float32))
        (observed,) = self.suite_env.observation_spec().values()
        size = observed.shape[0]
        self.angles = [place for place in range(size) if place in angles]
        """Places in ``dm_control``'s observation of the angles that are observed as cosine and sine."""
        if self.angles != [*angles]:
            raise ValueError(f"'angles' must be places in an observation of {size}, ascending, got {[*angles]}")
        self.observation_space = spaces.Box(-np.inf, np.inf, (size + len(angles),), np.float64)

    @property
    def physics(self) -> Any:
        """The simulation of ``dm_control``."""
        return self.suite_env.physics

    @property
    def model(self) -> Any:
        """MuJoCo's model of it."""
        return self.physics.model.ptr

    @property
    def data(self) -> Any:
        """MuJoCo's data of it."""
        return self.physics.data.ptr

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode as the task does, with the random numbers of this environment."""
        super().reset(seed=seed)
        return self.reset_model(), {}

    def reset_model(self) -> np.ndarray:
        """Begin an episode, and return what is observed."""
        self.suite_env.task._random = np.random.RandomState(self.np_random.bit_generator)
        return with_cos_sin(self.suite_env.reset().observation["observations"], self.angles)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take a step of the task."""
        taken = self.suite_env.step(action)
        return with_cos_sin(taken.observation["observations"], self.angles), float(taken.reward), False, False, {}

    def render(self) -> Any:
        """Return a picture by the task's first camera; needs OpenGL."""
        return self.physics.render(height=480, width=480, camera_id=0)


def with_cos_sin(observation: np.ndarray, angles: Sequence[int]) -> np.ndarray:
    """Return observations ``(…, o)`` with cosine and sine in the place of each of k angles, ``(…, o + k)``.

    :param angles: the places of the angles, ascending.

    >>> with_cos_sin(np.array([np.pi, 0.5, 0.1]), [0]).round(6)
    array([-1. ,  0. ,  0.5,  0.1])
    """
    if not angles:
        return observation
    whole = np.insert(observation, [place + 1 for place in angles], np.sin(observation[..., angles]), axis=-1)
    cosines = [place + i for i, place in enumerate(angles)]
    whole[..., cosines] = np.cos(whole[..., cosines])
    return whole


def without_cos_sin(observation: np.ndarray, angles: Sequence[int]) -> np.ndarray:
    """Return of what observations ``(…, o + k)`` are cosines and sines, with k angles in (−π, π], ``(…, o)``."""
    cosines = [place + i for i, place in enumerate(angles)]
    sines = [place + 1 for place in cosines]
    whole = observation.copy()
    whole[..., cosines] = np.arctan2(whole[..., sines], whole[..., cosines])
    return np.delete(whole, sines, axis=-1)
