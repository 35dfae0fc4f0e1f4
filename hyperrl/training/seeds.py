"""Training of several seeds side by side, in one batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from stable_baselines3 import PPO

from hyperrl.device import DevicePPO
from hyperrl.device.seeds import SideBySide
from hyperrl.families.family import Family, load_family
from hyperrl.policies.registry import algorithm_class
from hyperrl.simulation import BatchedVecEnv
from hyperrl.training.loop import log_to, write_model
from hyperrl.training.models import build
from hyperrl.training.recipe import AgentSpec, agent_spec
from hyperrl.training.record import Training
from hyperrl.training.run import UnfinishedRun


def train_seeds(
    family: str | Path | Family,
    agent: str | Path | AgentSpec,
    steps: int = 500_000,
    seeds: Sequence[int] = range(10),
    outs: Sequence[str | Path] | None = None,
    *,
    device: str = "auto",
) -> list[DevicePPO]:
    """Train an agent of each seed, all in one batch; each learns what :func:`hyperrl.train` gives, but for rounding.

    Of a hypernetwork nothing is logged (:class:`HyperDiagnostics`), and an interrupted training leaves nothing.

    :param family: one with batched physics; a family, its name or the path of its ``.toml`` file.
    :param agent: a recipe of PPO, see :func:`hyperrl.train`.
    :param steps: environment steps of each agent, rounded up to whole rollouts.
    :param seeds: one of each agent, no two alike.
    :param outs: the run folder of each agent; none may exist. ``None`` writes nothing.
    :param device: where all is: ``"cpu"``, ``"cuda"``, ``"auto"``.
    :raises ValueError: for a faulty recipe, for one that :class:`~hyperrl.DevicePPO` cannot record, for seeds that are
        alike, and for run folders that exist.

    >>> [model.seed for model in train_seeds("pendulum", "unaware-ppo", steps=1, seeds=[3, 4], device="cpu")]
    [3, 4]
    """
    family = family if isinstance(family, Family) else load_family(family)
    spec = agent if isinstance(agent, AgentSpec) else agent_spec(agent)
    if steps < 1:
        raise ValueError(f"expected at least one step, got steps={steps}")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"expected seeds, no two alike, got seeds={list(seeds)}")
    if algorithm_class(spec.definition.algorithm) is not PPO:
        raise ValueError(f"seeds are trained side by side by PPO, and 'algorithm' is {spec.definition.algorithm!r}")
    if outs is not None and len(outs) != len(seeds):
        raise ValueError(f"expected a run folder for each of {len(seeds)} seeds, got {len(outs)}")

    def make(seed: int) -> DevicePPO:
        return build(family, spec, seed, device=device, trainer="device")  # pyright: ignore[reportReturnType]

    n = spec.definition.n_envs * len(seeds)
    vec_env = family.vec_env(n, switch=spec.definition.switch, device="cpu" if device == "cpu" else "auto")
    if not isinstance(vec_env, BatchedVecEnv):
        raise ValueError(f"{family.place}: seeds are trained side by side in batched physics, and it has none")
    begun = time.monotonic()
    with ExitStack() as stack:
        runs = [
            stack.enter_context(
                UnfinishedRun(out, family, spec, Training.of(family, spec, steps, seed), False, "device")
            )
            for seed, out in zip(seeds, outs or (), strict=False)
        ]
        try:
            agents = SideBySide(make, seeds, vec_env)
            for model, run in zip(agents.models, runs, strict=False):
                log_to(model, run)
            agents.learn(steps)
        except BaseException:
            for run in runs:
                run.discard()
            raise
        for model, run in zip(agents.models, runs, strict=False):
            model.logger.close()
            write_model(run, model, spec, time.monotonic() - begun)
            run.publish()
    return agents.models
