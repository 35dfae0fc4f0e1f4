"""A callback that lets an encoder of transitions learn while the agent trains."""

from __future__ import annotations

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from hyperrl.alignment.acting import find_aligned


class AlignmentCallback(BaseCallback):
    """Let the encoder of :class:`~hyperrl.alignment.AlignedContext` learn after each rollout, before the agent does.

    Within a rollout the encoder stays the same. ``alignment/loss`` is logged: the mean squared error of the predicted
    change of the observation, in variances of this change.

    :raises ValueError: when the training begins, where the environments have no such wrapper.
    """

    def _on_training_start(self) -> None:
        aligned = find_aligned(self.model)
        if aligned is None:
            raise ValueError("expected environments in an AlignedContext: the callback trains its encoder")
        self.aligned = aligned

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        losses = self.aligned.learn(self.model._current_progress_remaining)
        if losses:
            self.logger.record_mean("alignment/loss", float(np.mean(losses)))
