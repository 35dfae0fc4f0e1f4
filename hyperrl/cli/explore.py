"""``hyperrl explore``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tyro.conf import Positional

from hyperrl.cli.agents import ESTIMATOR, Saved, load_agent, open_agent
from hyperrl.cli.arguments import draw_without_screen
from hyperrl.cli.console import say
from hyperrl.utils.extras import require

if TYPE_CHECKING:
    from hyperrl.families.family import Family

COME_ALONG: Final = (Path("pendulum/hyper-ppo"), Path("pendulum/concat-ppo"))
"""What is shown where nothing is asked for."""


def explore(
    agents: Positional[tuple[Path, ...]] = COME_ALONG,
    family: str | None = None,
    algorithm: str | None = None,
    normalizer: Path | None = None,
    seed: int = 0,
    port: int | None = None,
    browser: bool = True,
    device: str = "cpu",
    trust: bool = False,
) -> None:
    """Open a page in the browser on which trained agents act side by side while you change the context.

    The page is for this machine alone: it listens on 127.0.0.1. Where an agent has learnt to infer its context
    (`hyperrl infer`), what it infers is shown beside what is true.

    Args:
        agents: Run folders of one family, shared agents (see `hyperrl list`), or zips of Stable-Baselines3's models,
            with --family. Loading a zip unpickles, which can run any code: give zips that you trust.
            Default: pendulum/hyper-ppo and pendulum/concat-ppo, which come along.
        family: For zips: name of a family (see `hyperrl list`), or path of a .toml file.
        algorithm: For zips: what trained them, such as PPO or mypackage.algorithms:MyPPO. Default: found from the zip.
        normalizer: For zips: file that VecNormalize.save wrote, where they were trained with normalised observations.
        seed: Seed of the first start, and of the contexts that are drawn.
        port: Port of the page. Default: a free one.
        browser: Open a browser; else only the address is printed.
        device: Where the networks are: cpu, cuda, or auto for cuda where there is one.
        trust: Of a run folder, load model.zip, a pickle that can run any code, instead of model.safetensors.
    """
    require("the live page", "explore", "nicegui")
    import torch

    from hyperrl.explorer.page import free_port, serve
    from hyperrl.explorer.session import Session

    torch.set_num_threads(1)  # the fastest for networks as small as these
    draw_without_screen()
    free_port(port)  # before the models are loaded
    opened = [open_agent(agent, family, algorithm, normalizer, trust) for agent in agents]
    met = _family_of(opened)
    models = {
        name: load_agent(agent, device, hidden=agent.beside(ESTIMATOR).is_file())
        for name, agent in _named(opened).items()
    }
    serve(lambda: Session(met, models, seed), port, browser, lambda address: say(f"{address} (end with Ctrl-C)"))


def _family_of(agents: list[Any]) -> Family:
    """Return the family of all agents.

    :raises ValueError: where there are several.
    """
    first = agents[0]
    for other in agents[1:]:
        if (other.family.digest, other.family.irrelevant) != (first.family.digest, first.family.irrelevant):
            raise ValueError(
                f"expected agents of one family: {other.path} is of {other.family.name!r}, {first.path} of "
                f"{first.family.name!r}"
            )
    return first.family


def _named(agents: list[Saved]) -> dict[str, Saved]:
    """Call agents by their names, and by their paths too where several have one name."""
    counts = Counter(agent.name for agent in agents)
    return {agent.name if counts[agent.name] == 1 else f"{agent.name}, {agent.path}": agent for agent in agents}
