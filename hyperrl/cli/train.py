"""``hyperrl train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from hyperrl.cli.arguments import set_threads
from hyperrl.cli.console import say


def train(
    family: Positional[str],
    agent: Positional[str],
    out: Path | None = None,
    overrides: Annotated[tuple[str, ...], arg(name="set", metavar="KEY=VALUE")] = (),
    steps: int = 500_000,
    seed: int = 0,
    seeds: int = 1,
    contexts: int | None = None,
    irrelevant: int = 0,
    resume: bool = False,
    device: str = "auto",
    trainer: Literal["auto", "device", "sb3"] = "auto",
    threads: int = 1,
    progress: bool = True,
) -> None:
    """Train an agent on a family and write a run folder.

    Args:
        family: Name of a family (see `hyperrl list`), path of a .toml file, or module:attribute of one made in Python.
        agent: Name of an agent (see `hyperrl list`), or path of a .toml file.
        out: Run folder to write; must not exist. Default: runs/FAMILY-AGENT-SEED.
        overrides: Values in place of those of the recipe, such as `learning_rate=lin_7e-4 policy.rank=16 n_envs=128`:
            hyperparameters, keys of the recipe's file, and arguments of the policy behind `policy.`.
        steps: Environment steps to train for, rounded up to whole rollouts.
        seed: Seed of networks, contexts and initial states.
        seeds: Train so many seeds from `seed` on side by side, in one batch, and write a run folder of each.
        contexts: Train on a fixed set of this many contexts. Default: a fresh one each episode.
        irrelevant: Append this many features to the context on which nothing depends.
        resume: Continue an interrupted training of the same folder; begin where there is none.
        device: Where the networks are: cpu, cuda, or auto for cuda where there is one.
        trainer: What trains: device keeps PPO's rollouts and updates on one device as tensors, for batched
            environments, and records SAC's updates; sb3 is Stable-Baselines3; auto is device where it can be.
        threads: Threads that torch uses on the CPU; one is the fastest for networks as small as these.
        progress: Show a progress bar.
    """
    from hyperrl.families.family import load_family
    from hyperrl.training.loop import train
    from hyperrl.training.recipe import agent_spec, read_overrides

    set_threads(threads)
    loaded = load_family(family)
    suffix = f"-irrelevant{irrelevant}" if irrelevant else ""
    name = f"{loaded.name}-{Path(agent).stem}{suffix}"
    spec = agent_spec(agent, read_overrides(overrides))
    if seeds > 1:
        from hyperrl.training.seeds import train_seeds

        given = {
            "out": out is not None,
            "contexts": contexts is not None,
            "resume": resume,
            "trainer": trainer == "sb3",
        }
        if refused := [f"--{option}" for option, is_given in given.items() if is_given]:
            raise ValueError(f"--seeds {seeds} trains side by side: leave out {' and '.join(refused)}")
        numbers = range(seed, seed + seeds)
        outs = [Path("runs") / f"{name}-{number}" for number in numbers]
        train_seeds(loaded.with_irrelevant(irrelevant), spec, steps, numbers, outs, device=device)
        say(f"Wrote {outs[0]} to {outs[-1]}. Next: hyperrl evaluate {outs[0]}")
        return
    out = out or Path("runs") / f"{name}-{seed}"
    train(
        loaded.with_irrelevant(irrelevant),
        spec,
        steps,
        seed,
        out,
        contexts=contexts,
        resume=resume,
        device=device,
        trainer=trainer,
        progress=progress,
    )
    say(f"Wrote {out}. Next: hyperrl evaluate {out}")
