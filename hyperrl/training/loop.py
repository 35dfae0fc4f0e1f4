"""Training: a recipe run on a family, with Stable-Baselines3."""

from __future__ import annotations

from pathlib import Path

from numpy.typing import ArrayLike
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat

from hyperrl.alignment.acting import find_aligned
from hyperrl.alignment.callback import AlignmentCallback
from hyperrl.device.algorithms import ON_DEVICE
from hyperrl.families.family import Family, load_family
from hyperrl.training.checkpoint import Checkpoint, read, restore
from hyperrl.training.diagnostics import HyperDiagnostics
from hyperrl.training.models import build
from hyperrl.training.recipe import AgentSpec, agent_spec
from hyperrl.training.record import ENCODER, MODEL, NORMALIZER, WEIGHTS, Result, Training
from hyperrl.training.run import UnfinishedRun, trainer_of_interrupted
from hyperrl.training.weights import save_weights
from hyperrl.utils.provenance import describe_model, sha256_of


def train(
    family: str | Path | Family,
    agent: str | Path | AgentSpec,
    steps: int = 500_000,
    seed: int = 0,
    out: str | Path | None = None,
    *,
    contexts: int | ArrayLike | None = None,
    resume: bool = False,
    device: str = "auto",
    trainer: str = "auto",
    callback: BaseCallback | None = None,
    progress: bool = False,
    checkpoint_seconds: float = 30.0,
) -> BaseAlgorithm:
    """Train an agent on a family and return its Stable-Baselines3 model.

    :param family: a family, its name or the path of its ``.toml`` file.
    :param agent: the name of a recipe, the path of its ``.toml`` file, or what
        :func:`~hyperrl.training.agent_spec` made of either with overrides.
    :param steps: environment steps, rounded up to whole rollouts.
    :param seed: the same seed gives the same model, on the same machine.
    :param out: the run folder to write; it must not exist. ``None`` writes nothing.
    :param contexts: train on a fixed set of that many contexts, or on those of an array ``(n, d)``; ``None`` draws a
        fresh one for each episode.
    :param resume: continue an interrupted training of ``out`` from its last checkpoint; where there is none, begin.
        It goes on exactly as if it had not been interrupted, but where the state of the environments cannot be kept
        (:mod:`hyperrl.training.checkpoint`): there new episodes begin, and a warning and ``run.json`` say so.
    :param device: where the networks are: ``"cpu"``, ``"cuda"``, ``"auto"``.
    :param trainer: ``"device"``: :class:`~hyperrl.DevicePPO`, for PPO in batched environments, and
        :class:`~hyperrl.device.DeviceSAC`; ``"sb3"``: Stable-Baselines3's algorithms; ``"auto"``: the first
        where they can, and for an interrupted training what it was begun with. Results agree but for rounding.
    :param callback: a Stable-Baselines3 callback of your own.
    :param progress: show a progress bar.
    :param checkpoint_seconds: the least time between two checkpoints.
    :raises ValueError: for a faulty recipe, and for a run folder that exists.

    >>> model = train("pendulum", "hyper-ppo", steps=1, seed=0, device="cpu")
    >>> model.policy.context_space.names
    ('gravity', 'mass', 'length', 'torque_gain')
    """
    family = family if isinstance(family, Family) else load_family(family)
    spec = agent if isinstance(agent, AgentSpec) else agent_spec(agent)
    if steps < 1:
        raise ValueError(f"expected at least one step, got steps={steps}")
    if trainer == "auto" and resume and out is not None:
        trainer = trainer_of_interrupted(out) or trainer
    model = build(family, spec, seed, contexts, device, trainer)
    used = "device" if type(model) in ON_DEVICE.values() else "sb3"
    diagnostics = HyperDiagnostics()
    callbacks: list[BaseCallback] = [diagnostics]
    if spec.definition.alignment is not None:
        callbacks.append(AlignmentCallback())
    if callback is not None:
        callbacks.append(callback)
    if out is None:
        return model.learn(steps, callback=callbacks, progress_bar=progress)
    training = Training.of(family, spec, steps, seed, contexts)
    with UnfinishedRun(out, family, spec, training, resume, used) as run:
        if run.is_trained:
            return run.publish().model(device)
        state = read(run.checkpoint) if run.checkpoint.exists() else None
        if state is not None:
            model = restore(state, model)
            diagnostics.restore(state.diagnostics)
            if state.vec_env is None:
                run.restarted(model.num_timesteps)
        checkpoint = Checkpoint(run.checkpoint, checkpoint_seconds, diagnostics, state)
        del state  # its model and replay buffer need not lie in memory while the training goes on
        callbacks.append(checkpoint)
        log_to(model, run)
        try:
            remaining = steps - model.num_timesteps
            if remaining > 0:
                model.learn(remaining, callback=callbacks, progress_bar=progress, reset_num_timesteps=False)
        except BaseException:
            if not run.checkpoint.exists():
                run.discard()
            raise
        finally:
            model.logger.close()
        write_model(run, model, spec, checkpoint.elapsed)
        run.publish()
    return model


def write_model(run: UnfinishedRun, model: BaseAlgorithm, agent: AgentSpec, seconds: float) -> None:
    """Write a trained model into its run folder.

    :param seconds: how long the training took.
    """
    save_weights(model, agent, run.path / WEIGHTS)
    model.save(run.path / MODEL)
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        normalizer.save(str(run.path / NORMALIZER))
    aligned, encoder = find_aligned(model), None
    if aligned is not None:
        aligned.save(run.path / ENCODER)
        encoder = sha256_of(aligned.dynamics)
    run.finish(Result(describe_model(model), round(seconds, 1), str(model.device), encoder))


def log_to(model: BaseAlgorithm, run: UnfinishedRun) -> None:
    """Log a training into its run folder."""
    model.set_logger(Logger(str(run.path), [TensorBoardOutputFormat(str(run.path))]))
