"""Environment steps, counted by who trains."""

from __future__ import annotations

from stable_baselines3.common.callbacks import BaseCallback

from hyperrl.experiments.engines import report_steps


class CountSteps(BaseCallback):
    """Report the environment steps of a training to the engine that runs it."""

    def _on_step(self) -> bool:
        report_steps(self.training_env.num_envs)
        return True
