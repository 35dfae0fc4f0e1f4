import time

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table
from stable_baselines3.common.vec_env import VecEnv

import hyperrl
from hyperrl.catalog import family_spec, names


def physics(
    families: tuple[str, ...] = (),
    sizes: tuple[int, ...] = (16, 256, 4096),
    seconds: float = 1.0,
    device: str = "cpu",
) -> None:
    """Batched physics against Gymnasium's environments: environment steps per second with random actions, one core.

    Args:
        families: Names of families. Default: all that have both.
        sizes: Numbers of environments.
        seconds: How long each measurement takes.
        device: Where the batched environments are: cpu or cuda.
    """
    specs = {name: family_spec(name).definition for name in names("envs")}
    families = families or tuple(name for name, spec in specs.items() if spec.physics)
    table = Table(
        "family", "environments", "batched, steps/s", "µs/step", "gymnasium, steps/s", "ratio", title="Physics"
    )
    for name in track(families, console=Console(stderr=True), transient=True):
        family = hyperrl.load_family(name)
        for n in sizes:
            batched = _steps_per_second(family.vec_env(n, backend="batched", device=device), seconds)
            gymnasium = _steps_per_second(family.vec_env(n, backend="gymnasium"), seconds)
            cells = (f"{batched:,.0f}", f"{n / batched * 1e6:.0f}", f"{gymnasium:,.0f}", f"{batched / gymnasium:.1f}")
            table.add_row(name if n == sizes[0] else "", f"{n:,}", *cells)
        table.add_section()
    Console().print(table)


def _steps_per_second(vec_env: VecEnv, seconds: float) -> float:
    """Step with random actions, after a warm-up in which episodes fall out of step with each other."""
    n = vec_env.num_envs
    vec_env.action_space.seed(0)
    actions = [np.stack([vec_env.action_space.sample() for _ in range(n)]) for _ in range(4)]
    vec_env.reset()
    done, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds / 5:
        vec_env.step(actions[done % 4])
        done += 1
    done, begun = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begun) < seconds:
        vec_env.step(actions[done % 4])
        done += 1
    vec_env.close()
    return done * n / elapsed


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.extras.subcommand_cli_from_dict({"physics": physics})
