import copy
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import sb3_contrib
import torch
import tyro
from gymnasium.wrappers import FlattenObservation
from rich.console import Console
from rich.progress import track
from rich.table import Table
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

import hyperrl
import hyperrl.simulation.vec_env
from hyperrl.evaluation import estimate_iqm
from hyperrl.families.definition import family_spec
from hyperrl.physics.libmujoco import library, state_bits
from hyperrl.policies.registry import algorithm_class
from hyperrl.simulation import BatchedVecEnv
from hyperrl.training.models import build
from hyperrl.training.recipe import agent_spec
from hyperrl.utils.definitions import names

# RL Zoo's PPO for Pendulum-v1 (rl-baselines3-zoo, hyperparams/ppo.yml), for a policy that reads Dict observations.
ZOO: dict[str, Any] = dict(
    n_steps=1024,
    gae_lambda=0.95,
    gamma=0.9,
    n_epochs=10,
    ent_coef=0.0,
    learning_rate=1e-3,
    clip_range=0.2,
    use_sde=True,
    sde_sample_freq=4,
)
ZOO_ENVS = 4


def physics(
    families: tuple[str, ...] = (),
    sizes: tuple[int, ...] = (16, 256, 4096),
    seconds: float = 1.0,
    device: str = "cpu",
    subprocesses: bool = False,
) -> None:
    """Batched physics against Gymnasium's environments: environment steps per second with random actions, one core.

    Seconds are those that the process computes for, so that other work on the machine counts little; with a device, and
    for processes, they are those of the clock. Of MuJoCo's bodies it also has what MuJoCo's own steps take, without
    contexts, observations, rewards and starts.

    Args:
        families: Names or paths of families. Default: all that have physics.
        sizes: Numbers of environments.
        seconds: How long each measurement takes.
        device: Where the batched environments are: cpu or cuda.
        subprocesses: Measure SubprocVecEnv too, one process an environment, up to 16.
    """
    families = families or tuple(name for name in names("envs") if family_spec(name).definition.physics)
    bodies = {name for name in families if family_spec(name).definition.physics == "mujoco"}
    columns = ["family", "envs", "batched/s", "µs/step", "Dummy/s", "ratio"]
    columns += ["mj_step µs"] * bool(bodies) + ["Subproc/s"] * subprocesses
    table = Table(*columns, title="Physics: env-steps per second")
    for name in track(families, console=Console(stderr=True), transient=True):
        family = hyperrl.load_family(name)
        for n in sizes:
            clock = time.process_time if device == "cpu" else time.perf_counter
            batched = _steps_per_second(family.vec_env(n, backend="batched", device=device), seconds, clock)
            dummy = _steps_per_second(family.vec_env(n, backend="gymnasium"), seconds)
            cells = [f"{batched:,.0f}", f"{n / batched * 1e6:.0f}", f"{dummy:,.0f}", f"{batched / dummy:.1f}"]
            if bodies:
                cells.append(f"{1e6 / _mujoco_steps_per_second(family, n, seconds):.1f}" if name in bodies else "")
            if subprocesses:
                processes = SubprocVecEnv([family.make] * n) if n <= 16 else None
                speed = _steps_per_second(processes, seconds, time.perf_counter) if processes else None
                cells.append(f"{speed:,.0f}" if speed else "")
            table.add_row(name if n == sizes[0] else "", f"{n:,}", *cells)
        table.add_section()
    if "cartpole" in families:
        for n in sizes:
            vector = gym.make_vec("CartPole-v1", num_envs=n, vectorization_mode="vector_entry_point")
            table.add_row(
                "Gymnasium's CartPole" if n == sizes[0] else "", f"{n:,}", f"{_gymnasium(vector, seconds):,.0f}"
            )
    Console().print(table)


def training(family: str = "pendulum", rollouts: int = 6, returns: int = 0, seeds: int = 5) -> None:
    """Whole PPO training on one core: env-steps per second, and returns at equal steps.

    Args:
        family: Name of a family with a Gymnasium original.
        rollouts: How many rollouts are timed.
        returns: Steps after which the recipes' returns are compared; 0 leaves that out.
        seeds: How many seeds the comparison of returns takes.
    """
    loaded = hyperrl.load_family(family)
    base = family_spec(family).definition.base
    if base is None:
        raise ValueError(f"{family} has no Gymnasium environment to compare with")
    same: dict[str, Any] = dict(n_steps=64, batch_size=4096, n_epochs=10, device="cpu")
    table = Table("what", "environments", "batch", "env-steps/s", "ratio", title=f"PPO on {family}, one core")

    def add(models: dict[str, Any]) -> None:  # PPO by name
        speeds = _training_speeds(list(models.values()), rollouts)
        for (what, model), speed in zip(models.items(), speeds, strict=True):
            is_batched = isinstance(model.env.unwrapped, BatchedVecEnv)
            envs = f"{model.n_envs} {'batched' if is_batched else 'Dummy'}"
            table.add_row(what, envs, f"{model.batch_size:,}", f"{speed:,.0f}", f"{speed / speeds[0]:.2f}")
        table.add_section()

    dummy = DummyVecEnv([lambda: gym.make(base)] * 256)
    concat = dict(net_arch=build(loaded, agent_spec("concat-ppo"), device="cpu").policy.net_arch)
    add(
        {
            "SB3 MlpPolicy, no context": PPO("MlpPolicy", dummy, **same),
            "unaware 64-64": PPO(hyperrl.UnawarePolicy, loaded.vec_env(256), **same),
            "concat, matched": PPO(hyperrl.ConcatPolicy, loaded.vec_env(256), policy_kwargs=concat, **same),
            "hyper low_rank": PPO(hyperrl.HyperPolicy, loaded.vec_env(256), **same),
        }
    )

    def zoo(seed: int) -> PPO:
        vec_env = loaded.vec_env(ZOO_ENVS, backend="gymnasium", seed=seed)
        return PPO("MultiInputPolicy", vec_env, device="cpu", seed=seed, **ZOO)

    recipes = ("hyper-ppo", "hyper-ppo-fast")
    add({"RL Zoo's recipe": zoo(0)} | {recipe: build(loaded, agent_spec(recipe), device="cpu") for recipe in recipes})
    Console().print(table)
    if returns:

        def ours(recipe: str, seed: int) -> PPO:
            return build(loaded, agent_spec(recipe), seed, device="cpu")  # pyright: ignore[reportReturnType]

        makers = {"RL Zoo's recipe": zoo} | {recipe: partial(ours, recipe) for recipe in recipes}
        table = Table(
            "recipe", "split", "IQM [95 % interval]", title=f"{family}: return after {returns:,} steps, {seeds} seeds"
        )
        for what, make in makers.items():
            begun = time.perf_counter()
            reports = [
                hyperrl.evaluate(make(seed).learn(returns), loaded) for seed in track(range(seeds), transient=True)
            ]
            for split in reports[0].splits:
                scores = np.array([report.splits[split].returns for report in reports])
                table.add_row(what, split, "{:.0f} [{:.0f}, {:.0f}]".format(*estimate_iqm(scores)))
            table.add_row("", "seconds a seed", f"{(time.perf_counter() - begun) / seeds:.0f}", end_section=True)
        Console().print(table)


def device(
    family: str = "pendulum",
    recipes: tuple[str, ...] = ("hyper-ppo", "unaware-ppo"),
    rollouts: int = 6,
    envs: int | None = None,
    device: str = "cpu",
    out: Path | None = None,
) -> None:
    """DevicePPO and DeviceSAC against Stable-Baselines3's, the same recipes and environments, side by side.

    All minibatches are made, as if target_kl were not there. On the CPU, seconds are those that the process computes
    for. The fastest of all rollouts and the fastest of all updates count.

    Args:
        family: Name of a family with batched physics.
        recipes: Recipes of PPO or SAC.
        rollouts: How many iterations of each are timed; a hundred times as many of SAC, whose are of one step.
        envs: Number of environments in place of the recipe's; a rollout has as many minibatches as in the recipe then.
        device: cpu or cuda.
        out: Markdown file to write.
    """
    loaded = hyperrl.load_family(family)
    models: dict[tuple[str, str], Any] = {}
    for recipe in recipes:
        spec = agent_spec(recipe)
        if envs is not None:
            is_sac = spec.definition.algorithm == "SAC"
            batch = spec.definition.hyperparameters["batch_size"] * envs // spec.definition.n_envs
            spec = agent_spec(recipe, dict(n_envs=envs) if is_sac else dict(n_envs=envs, batch_size=batch))
        for trainer in ("sb3", "device"):
            model: Any = build(loaded, spec, device=device, trainer=trainer)
            model.target_kl, model.learning_starts = None, 0
            models[recipe, trainer] = _Timed(model, device)
    for _ in track(range(rollouts + 1), console=Console(stderr=True), transient=True):
        for timed in models.values():
            timed.model.learn(timed.steps * (100 if isinstance(timed.model, SAC) else 1))
    rows = ["| recipe | trainer | rollout, ms | update, ms a minibatch | env-steps/s | to SB3 |", "| --- " * 6 + "|"]
    for (recipe, trainer), timed in models.items():
        collect, train = timed.fastest
        ratio = timed.speed / models[recipe, "sb3"].speed
        rows.append(
            f"| {recipe} | {trainer} | {collect * 1e3:.3g} | {train / timed.minibatches * 1e3:.2f} "
            f"| {timed.speed:,.0f} | {ratio:.2f} |"
        )
    hyper, *others = (models[recipe, "device"].speed for recipe in recipes)
    rows += [
        "",
        *(f"Time of {recipes[0]} by that of {r}: {o / hyper:.2f}." for r, o in zip(recipes[1:], others, strict=True)),
    ]
    text = (
        f"{family} on {device}, torch {torch.__version__}, {next(iter(models.values())).model.n_envs} environments:\n\n"
    )
    text += "\n".join(rows) + "\n"
    print(text)
    if out is not None:
        out.write_text(text, encoding="utf-8")


class _Timed:
    """Notes the fastest rollout and the fastest update of a model, once each is warm."""

    def __init__(self, model: Any, device: str) -> None:
        self.model = model
        self.fastest = [float("inf"), float("inf")]
        self.clock = time.process_time if device == "cpu" else time.perf_counter
        model.collect_rollouts, model.train = self.of(model.collect_rollouts, 0), self.of(model.train, 1)

    def of(self, function: Callable[..., Any], part: int) -> Callable[..., Any]:
        calls = 0

        def timed(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            begun = self.clock()
            result = function(*args, **kwargs)
            if self.model.device.type == "cuda":
                torch.cuda.synchronize()
            calls += 1
            if calls > 1:
                self.fastest[part] = min(self.fastest[part], self.clock() - begun)
            return result

        return timed

    @property
    def steps(self) -> int:
        """Steps of environments in a rollout."""
        is_sac = isinstance(self.model, SAC)
        return self.model.n_envs * (self.model.train_freq.frequency if is_sac else self.model.n_steps)

    @property
    def minibatches(self) -> float:
        """Of an update."""
        model = self.model
        if isinstance(model, SAC):
            return self.steps if model.gradient_steps < 0 else model.gradient_steps
        return model.n_epochs * self.steps / model.batch_size

    @property
    def speed(self) -> float:
        return self.steps / sum(self.fastest)


def algorithms(names: tuple[str, ...] = (), steps: int = 2000, envs: int = 8) -> None:
    """Whole training with a hypernetwork policy against SB3's own, which gets the context as inputs: env-steps/s.

    Both have the algorithm's default networks and hyperparameters, on the same environments.

    Args:
        names: Algorithms. Default: all.
        steps: Steps of each timed run; the fastest of three counts.
        envs: Number of environments.
    """
    table = Table(
        "algorithm", "family", "MultiInputPolicy/s", "hyper/s", "ratio", title="Training: env-steps per second"
    )
    for name in track(names or tuple(hyperrl.policies.POLICY_OF), console=Console(stderr=True), transient=True):
        family = hyperrl.load_family("cartpole" if "DQN" in name else "pendulum")
        hyper = getattr(hyperrl.policies, hyperrl.policies.POLICY_OF[name])
        if name == "CrossQ":  # which takes flat observations only
            algorithm, stock = sb3_contrib.CrossQ, "MlpPolicy"
            vec_env: VecEnv = DummyVecEnv([lambda: FlattenObservation(family.make())] * envs)  # noqa: B023
            d = len(family.context_space)
            first = next(iter(family.make().observation_space.spaces)) == "context"  # pyright: ignore[reportAttributeAccessIssue]
            policy_kwargs = dict(context_slice=(0, d) if first else (-d, None))
        else:
            algorithm, stock = algorithm_class(name), "MultiInputPolicy"
            vec_env, policy_kwargs = family.vec_env(envs), {}
        sizes: dict[str, Any] = (
            dict(n_steps=64) if name in ("PPO", "A2C", "TRPO") else dict(learning_starts=100, buffer_size=10_000)
        )
        speeds: dict[Any, float] = {stock: 0.0, hyper: 0.0}
        for _ in range(3):
            for policy in speeds:
                kwargs = policy_kwargs if policy is hyper else {}
                model = algorithm(policy, vec_env, policy_kwargs=kwargs, device="cpu", **sizes)
                model.learn(200)
                begun = time.perf_counter()
                model.learn(steps)
                speeds[policy] = max(speeds[policy], steps / (time.perf_counter() - begun))
        plain, generated = speeds.values()
        table.add_row(name, family.name, f"{plain:,.0f}", f"{generated:,.0f}", f"{generated / plain:.2f}")
    Console().print(table)


def memory(envs: int = 4096, steps: int = 128) -> None:
    """Memory of environments with SB3's rollout buffer, above what the imports take.

    Args:
        envs: Number of environments.
        steps: Steps of the rollout buffer.
    """
    import resource

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    before = peak()
    vec_env = hyperrl.load_family("pendulum").vec_env(envs)
    PPO(hyperrl.HyperPolicy, vec_env, n_steps=steps, batch_size=8192, n_epochs=1, device="cpu").learn(1)
    Console().print(
        f"{envs:,} environments × {steps} steps: {peak() - before:,.0f} MiB above the imports' {before:,.0f} MiB"
    )


def warp(
    families: tuple[str, ...] = ("half_cheetah", "hopper"),
    size: int = 64,
    device: str = "cpu",
    steps: tuple[int, ...] = (1, 10, 100),
) -> None:
    """MuJoCo Warp against MuJoCo: how far observations and rewards are apart, from the same starts by random actions.

    The last column is MuJoCo against itself, from starts rounded to float32. Of an observation the number that differs
    most counts. Medians over the environments, and the largest in brackets.

    Args:
        families: Names or paths of families.
        size: How many environments.
        device: Where MuJoCo Warp is: cpu or cuda.
        steps: After how many steps they are compared.
    """
    columns = ("family", "split", "steps", "Warp: observation", "Warp: reward", "rounded start: observation")
    table = Table(*columns, title=f"Differences to MuJoCo, {size} contexts")

    def cell(differences: torch.Tensor) -> str:
        rows = differences.abs().flatten(1).amax(1)
        return f"{rows.median():.1e} ({rows.max():.1e})"

    for name in track(families, console=Console(stderr=True), transient=True):
        family = hyperrl.load_family(name)
        for split in ("train", "extrapolation"):
            contexts = family.context_space.sample(split, size, 0)
            options: Any = dict(n_envs=size, contexts=contexts, seed=1)
            exact: Any = family.vec_env(**options)
            other: Any = family.vec_env(**options, backend="warp", device=device)
            exact.reset()
            simulator, place = exact.simulator, other.simulator.device
            engines = (simulator.physics, other.simulator.physics)
            start, c = simulator.state.clone(), simulator._c
            states = [start, start.to(place), start.float().double()]
            there = {feature: values.to(place) for feature, values in c.items()}
            rng, space = np.random.default_rng(0), simulator.action_space
            for step in range(1, max(steps) + 1):
                action = torch.from_numpy(rng.uniform(space.low, space.high, (size, *space.shape)))
                one = engines[0].step(states[0], action, c)
                two = engines[1].step(states[1], action.to(place), there)
                three = engines[0].step(states[2], action, c)
                states = [one[0], two[0], three[0]]
                if step in steps:
                    seen = [engines[0].observe(state.cpu()) for state in states]
                    rewards = (one[1] - two[1].cpu())[:, None]
                    cells = map(cell, (seen[0] - seen[1], rewards, seen[0] - seen[2]))
                    table.add_row(name if step == min(steps) else "", split, f"{step}", *cells)
            table.add_section()
    Console().print(table)


def _training_speeds(models: Sequence[PPO], rollouts: int) -> list[float]:
    """Return each model's steps per second: whole iterations, in turn, of which the fastest counts.

    After one to warm up, and with no early stop, so that all do the same work.
    """
    for model in models:
        model.target_kl = None

    def speed(model: PPO) -> float:
        rollout = model.n_steps * model.n_envs
        begun = time.perf_counter()
        model.learn(rollout)
        return rollout / (time.perf_counter() - begun)

    _, *timed = [[speed(model) for model in models] for _ in range(rollouts + 1)]
    return [max(of_one) for of_one in zip(*timed, strict=True)]


def _gymnasium(vector: gym.vector.VectorEnv, seconds: float) -> float:
    """Step one of Gymnasium's vectorised environments with random actions."""
    vector.reset(seed=0)
    actions = [vector.action_space.sample() for _ in range(4)]
    done, begun = 0, time.process_time()
    while (elapsed := time.process_time() - begun) < seconds:
        vector.step(actions[done % 4])
        done += 1
    return done * vector.num_envs / elapsed


def _steps_per_second(vec_env: VecEnv, seconds: float, clock: Callable[[], float] = time.process_time) -> float:
    """Step with random actions, after a warm-up in which episodes fall out of step with each other."""
    n = vec_env.num_envs
    vec_env.action_space.seed(0)
    actions = [np.stack([vec_env.action_space.sample() for _ in range(n)]) for _ in range(4)]
    vec_env.reset()
    done, begun = 0, clock()
    while clock() - begun < seconds / 5:
        vec_env.step(actions[done % 4])
        done += 1
    done, begun = 0, clock()
    while (elapsed := clock() - begun) < seconds:
        vec_env.step(actions[done % 4])
        done += 1
    vec_env.close()
    return done * n / elapsed


def _mujoco_steps_per_second(family: hyperrl.Family, n: int, seconds: float) -> float:
    """Let MuJoCo alone take the steps that ``n`` environments in the default context have taken with random actions."""
    vec_env: Any = family.vec_env(n, contexts=family.context_space.default[None], seed=0, threads=1)
    physics = vec_env.simulator.physics
    vec_env.action_space.seed(0)
    vec_env.reset()
    dones = np.ones(n, dtype=bool)
    played: list[tuple[np.ndarray, ...]] = []
    for step in range(400):
        actions = np.stack([vec_env.action_space.sample() for _ in range(n)])
        if step >= 300:  # when episodes have fallen out of step with each other
            states = vec_env.simulator.state.numpy()[:, : physics.size].copy()
            played.append((dones if played else np.ones(n, dtype=bool), states, actions))
        dones = vec_env.step(actions)[2]
    mujoco, bits, substeps = library(), state_bits(), physics.env.frame_skip
    models = [copy.copy(physics.env.model) for _ in range(n)]
    simulations = [(model, mujoco.MjData(model)) for model in models]
    done, begun = 0, time.process_time()
    while time.process_time() - begun < seconds:
        for starts, states, actions in played:
            for i, (model, data) in enumerate(simulations):
                if starts[i]:
                    mujoco.mj_setState(model, data, states[i], bits)
                data.ctrl = actions[i]
                mujoco.mj_step(model, data, substeps)
        done += len(played)
    return done * n / (time.process_time() - begun)


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.extras.subcommand_cli_from_dict(
        {
            "physics": physics,
            "training": training,
            "device": device,
            "warp": warp,
            "algorithms": algorithms,
            "memory": memory,
        }
    )
