import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.testing import assert_array_equal
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import hyperrl
from hyperrl import export
from hyperrl.rollouts.agent import Agent
from hyperrl.training.loop import train
from hyperrl.training.models import build
from hyperrl.training.recipe import AgentSpec, agent_spec
from hyperrl.training.record import Training
from hyperrl.training.run import Run
from hyperrl.utils.definitions import folder, names
from hyperrl.utils.provenance import describe_model, n_parameters

AGENTS = names("agents")
FAMILIES = names("envs")
QUICK = """
algorithm = "PPO"
policy = "hyper"
n_envs = 4
normalize_reward = true
[hyperparameters]
n_steps = 16
batch_size = 32
n_epochs = 2
learning_rate = "lin_1e-2"
[policy_kwargs]
"""


OFF_POLICY = """
algorithm = "SAC"
policy = "hyper"
n_envs = 4
normalize_reward = true
[hyperparameters]
learning_starts = 20
batch_size = 16
buffer_size = 80
[policy_kwargs]
net_arch = [8]
"""


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    """A recipe of small rollouts."""
    path = tmp_path / "quick.toml"
    path.write_text(QUICK)
    return path


class Interrupt(BaseCallback):
    """Stop a training as Ctrl-C does."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.at:
            raise KeyboardInterrupt
        return True


SMALL = dict(
    n_envs=4, n_steps=16, batch_size=32, n_epochs=2, learning_starts=16, buffer_size=400, gradient_steps=1, train_freq=4
)


def small(agent: str, folder: Path) -> Path:
    """Write a packaged recipe with small rollouts, batches and networks."""
    text = agent_spec(agent).source.read_text()
    for key, value in SMALL.items():
        text = re.sub(rf"^{key} = -?[\d_]+", f"{key} = {value}", text, flags=re.MULTILINE)
    text = text.replace("net_arch = [256, 256]", "net_arch = [32, 32]")
    recipe = folder / f"{agent}.toml"
    recipe.write_text(text)
    return recipe


def learn_briefly(family: hyperrl.Family, spec: AgentSpec) -> None:
    """Let an agent learn once or twice, and check that it did."""
    model: Any = build(family, spec, device="cpu")
    if isinstance(model, OnPolicyAlgorithm):
        model.n_epochs, steps = 1, 2 * model.n_steps * model.n_envs  # two: the learning rate falls to zero by the last  # pyright: ignore[reportAttributeAccessIssue]
    else:
        model.learning_starts, steps = model.n_envs, 3 * model.n_envs
    before = model.policy.parameters_to_vector()
    model.learn(steps)
    assert model.num_timesteps == steps
    assert np.isfinite(model.policy.parameters_to_vector()).all()
    assert not np.array_equal(model.policy.parameters_to_vector(), before)


@pytest.mark.parametrize("agent", AGENTS)
def test_every_agent_trains(agent: str) -> None:
    """With the recipe's own sizes."""
    learn_briefly(hyperrl.load_family("pendulum"), agent_spec(agent))


def pairs() -> Iterator[Any]:
    """Every family with every agent. Only every family with one agent, and every agent on one family, are fast."""
    for family in FAMILIES:
        for agent in AGENTS:
            is_fast = agent == "hyper-ppo" or family == "cartpole"
            yield pytest.param(family, agent, marks=[] if is_fast else pytest.mark.slow)


@pytest.mark.parametrize(("family", "agent"), [*pairs()])
def test_every_agent_trains_on_every_family(family: str, agent: str, tmp_path: Path) -> None:
    """With small rollouts."""
    loaded, spec = hyperrl.load_family(family), agent_spec(small(agent, tmp_path))
    if spec.definition.algorithm == "SAC" and isinstance(loaded.make().action_space, spaces.Discrete):
        with pytest.raises(ValueError, match=r"-sac\.toml: The algorithm only supports .*Box"):
            build(loaded, spec, device="cpu")
        return
    learn_briefly(loaded, spec)


@cache
def size(family: str, agent: str) -> int:
    """How many parameters an agent has."""
    return n_parameters(build(hyperrl.load_family(family), agent_spec(agent, {"n_envs": 2})).policy)


def matched() -> Iterator[Any]:
    """Every agent whose size is matched, with every family; fast as in :func:`pairs`."""
    for agent in (agent for agent in AGENTS if agent_spec(agent).definition.match_parameters):
        for family in FAMILIES:
            is_fast = agent == "concat-ppo" or family in ("cartpole", "pendulum", "half_cheetah")
            yield pytest.param(family, agent, marks=[] if is_fast else pytest.mark.slow)


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")
@pytest.mark.parametrize(("family", "agent"), [*matched()])
def test_parameters_match_within_five_percent(family: str, agent: str) -> None:
    definition = agent_spec(agent).definition
    assert definition.match_parameters is not None
    if definition.algorithm == "SAC" and isinstance(hyperrl.load_family(family).make().action_space, spaces.Discrete):
        return
    assert size(family, agent) == pytest.approx(size(family, definition.match_parameters), rel=0.05)


def test_a_run_folder_holds_everything(quick: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "x"
    model = train("pendulum", quick, steps=2000, seed=3, out=out, device="cpu")
    run = Run.open(out)
    assert run.training == Training.of(hyperrl.load_family("pendulum"), agent_spec(quick), 2000, 3)
    assert (run.training.family, run.training.agent, run.training.contexts) == ("pendulum", "quick", None)
    assert run.result.model == describe_model(model)
    assert run.result.model.steps == 2048
    assert run.record.versions.keys() >= {"hyperrl", "torch", "stable-baselines3", "gymnasium", "python"}
    assert run.record.command
    assert run.family.context_space == hyperrl.load_family("pendulum").context_space
    assert run.agent.definition == agent_spec(quick).definition
    loaded = run.model("cpu")
    assert isinstance(loaded, PPO)
    assert_array_equal(loaded.policy.parameters_to_vector(), model.policy.parameters_to_vector())
    normalizer, loaded_normalizer = model.get_vec_normalize_env(), loaded.get_vec_normalize_env()
    assert normalizer is not None
    assert loaded_normalizer is not None
    assert loaded_normalizer.ret_rms.var == normalizer.ret_rms.var != 1
    log = EventAccumulator(str(out)).Reload()
    assert {"train/approx_kl", "hyper/effective_rank"} <= set(log.Tags()["scalars"])
    assert not list(tmp_path.glob("runs/*partial"))
    assert {path.name for path in out.iterdir() if "tfevents" not in path.name} == {
        *("run.json", "family.toml", "agent.toml", "model.safetensors", "model.zip", "vecnormalize.pkl")
    }


def test_the_same_seed_gives_the_same_model(quick: Path) -> None:
    first, again, other = (train("cartpole", quick, 256, seed, device="cpu").policy for seed in (1, 1, 2))
    assert_array_equal(first.parameters_to_vector(), again.parameters_to_vector())
    assert not np.array_equal(first.parameters_to_vector(), other.parameters_to_vector())


def test_a_fixed_set_of_contexts(quick: Path) -> None:
    model = build(hyperrl.load_family("cartpole"), agent_spec(quick), seed=5, contexts=3, device="cpu")
    seen: set[tuple[float, ...]] = set()

    class Look(BaseCallback):
        def _on_step(self) -> bool:
            seen.update(tuple(row) for row in self.locals["new_obs"]["context"])
            return True

    model.learn(2000, callback=Look())
    expected = hyperrl.load_family("cartpole").context_space.sample("train", 3, 5).astype(np.float32)
    assert seen == {tuple(row) for row in expected}


@pytest.mark.parametrize(
    ("policy", "algorithm", "family"),
    [("hyper", "SAC", "pendulum"), ("concat", "TD3", "pendulum"), ("unaware", "DQN", "cartpole")],
)
def test_off_policy_agents_resume_exactly(
    quick: Path, tmp_path: Path, algorithm: str, family: str, policy: str
) -> None:
    """With the replay buffer, its generators of random actions, and noise; random actions are still drawn by then."""
    recipe = OFF_POLICY.replace("SAC", algorithm).replace('"hyper"', f'"{policy}"')
    if algorithm == "TD3":
        recipe = recipe.replace("[hyperparameters]", "[hyperparameters]\naction_noise = 0.2")
    if algorithm == "DQN":
        recipe = recipe.replace("[hyperparameters]", "[hyperparameters]\nexploration_final_eps = 0.5")
    quick.write_text(recipe)
    arguments: Any = dict(steps=128, seed=2, device="cpu", checkpoint_seconds=0)
    whole = train(family, quick, **arguments)
    for at in (12, 60):
        out = tmp_path / f"{at}"
        with pytest.raises(KeyboardInterrupt):
            train(family, quick, out=out, callback=Interrupt(at=at), **arguments)
        np.random.seed(99)  # noqa: NPY002 (whatever the process did before)
        resumed = train(family, quick, out=out, resume=True, **arguments)
        assert resumed.num_timesteps == whole.num_timesteps == 128
        assert_array_equal(resumed.policy.parameters_to_vector(), whole.policy.parameters_to_vector())
        loaded = Run.open(out).model("cpu")
        assert_array_equal(loaded.policy.parameters_to_vector(), whole.policy.parameters_to_vector())


@pytest.mark.parametrize("agent", AGENTS)
def test_every_agent_resumes_exactly_and_is_evaluated(agent: str, tmp_path: Path) -> None:
    """The packaged recipes, with small rollouts."""
    recipe = small(agent, tmp_path)
    arguments: Any = dict(steps=128, seed=2, device="cpu", checkpoint_seconds=0)
    whole = train("pendulum", recipe, **arguments)
    with pytest.raises(KeyboardInterrupt):
        train("pendulum", recipe, out=tmp_path / "x", callback=Interrupt(at=80), **arguments)
    resumed = train("pendulum", recipe, out=tmp_path / "x", resume=True, **arguments)
    assert_array_equal(resumed.policy.parameters_to_vector(), whole.policy.parameters_to_vector())
    run = Run.open(tmp_path / "x")
    measure = lambda m: hyperrl.evaluate(m, run.family, ("train",), contexts=4, episodes=1, seed=1)  # noqa: E731
    reports = [measure(model) for model in (whole, run.model("cpu"))]
    assert_array_equal(*(report.splits["train"].returns for report in reports))
    definition = agent_spec(agent).definition
    has_critic = definition.algorithm == "PPO" and definition.alignment is None  # one that needs no memory
    assert (reports[1].splits["train"].values is not None) == has_critic


@pytest.mark.parametrize("normalize", ["normalize_reward", "normalize_observation", None])
@pytest.mark.parametrize("family", ["pendulum", "cartpole"])
def test_resuming_equals_not_having_been_interrupted(
    quick: Path, tmp_path: Path, family: str, normalize: str | None
) -> None:
    quick.write_text(QUICK.replace("normalize_reward = true", "" if normalize is None else f"{normalize} = true"))
    arguments: Any = dict(steps=1000, seed=2, device="cpu", checkpoint_seconds=0)
    whole = train(family, quick, **arguments)
    out = tmp_path / "x"
    with pytest.raises(KeyboardInterrupt):
        train(family, quick, out=out, callback=Interrupt(at=500), **arguments)
    assert not out.exists()
    with pytest.raises(ValueError, match=r"x\.partial holds an interrupted training: continue it with --resume"):
        train(family, quick, out=out, **arguments)
    with pytest.raises(ValueError, match=r"holds another training: steps was 1000, now 900; seed was 2, now 3"):
        train(family, quick, out=out, resume=True, **(arguments | dict(seed=3, steps=900)))
    with pytest.raises(ValueError, match="was interrupted: continue it with --resume"):
        Run.open(out)
    np.random.seed(99)  # noqa: NPY002 (whatever the process did before)
    resumed = train(family, quick, out=out, resume=True, **arguments)
    assert resumed.num_timesteps == whole.num_timesteps
    assert_array_equal(resumed.policy.parameters_to_vector(), whole.policy.parameters_to_vector())
    assert_array_equal(Run.open(out).model("cpu").policy.parameters_to_vector(), whole.policy.parameters_to_vector())
    steps = [event.step for event in EventAccumulator(str(out)).Reload().Scalars("train/approx_kl")]
    assert max(steps) == whole.num_timesteps


def test_observations_are_standardised_wherever_the_agent_acts_and_contexts_are_not(
    quick: Path, tmp_path: Path
) -> None:
    quick.write_text("normalize_observation = true\n" + QUICK)
    trained = train("pendulum", quick, steps=1000, device="cpu", out=tmp_path / "run")
    normalizer: Any = trained.get_vec_normalize_env()
    assert normalizer.obs_rms.keys() == {"observation"}
    assert normalizer.obs_rms["observation"].count > 1000
    raw = normalizer.get_original_obs()
    seen = normalizer.normalize_obs(raw)
    assert_array_equal(seen["context"], raw["context"])
    standardised = (raw["observation"] - normalizer.obs_rms["observation"].mean) / np.sqrt(
        normalizer.obs_rms["observation"].var + normalizer.epsilon
    )
    np.testing.assert_allclose(seen["observation"], standardised, rtol=1e-5)
    run = Run.open(tmp_path / "run")
    loaded: Any = run.model("cpu")
    actions = loaded.predict(loaded.get_vec_normalize_env().normalize_obs(raw), deterministic=True)[0]
    assert_array_equal(actions, trained.predict(seen, deterministic=True)[0])
    # What plays it, what it is specialised to, and what is exported standardise too.
    context = {"length": 0.7, "torque_gain": -1.0}
    env: Any = run.family.make(context)
    observation, _ = env.reset(seed=0)
    one = {key: value[None] for key, value in observation.items()}
    expected = loaded.predict(loaded.get_vec_normalize_env().normalize_obs(one), deterministic=True)[0]
    played = Agent(loaded, env.observation_space).act(one, np.ones(1, dtype=bool))
    assert_array_equal(played, expected)
    export.save(loaded, tmp_path / "policy.safetensors", context, "safetensors")
    exported = export.load(tmp_path / "policy.safetensors").predict(observation["observation"])
    np.testing.assert_allclose(exported, expected[0], atol=1e-5)


def test_two_trainings_never_write_to_one_folder(quick: Path, tmp_path: Path) -> None:
    refused: list[str] = []

    class Another(BaseCallback):
        def _on_training_start(self) -> None:
            for resume in (False, True):
                with pytest.raises(ValueError) as error:  # noqa: PT011 (compared below)
                    train("pendulum", quick, steps=200, out=tmp_path / "x", device="cpu", resume=resume)
                refused.append(str(error.value))

        def _on_step(self) -> bool:
            return True

    train("pendulum", quick, steps=200, out=tmp_path / "x", device="cpu", callback=Another())
    message = f"another process is writing {tmp_path / 'x'}: wait until it has ended, or choose another name"
    assert refused == [message] * 2
    assert Run.open(tmp_path / "x").result.model.steps >= 200


def test_a_checkpoint_or_record_of_another_version_is_named(quick: Path, tmp_path: Path) -> None:
    arguments: Any = dict(steps=1000, out=tmp_path / "x", device="cpu", checkpoint_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        train("pendulum", quick, callback=Interrupt(at=500), **arguments)
    checkpoint, record = tmp_path / "x.partial" / "checkpoint", tmp_path / "x.partial" / "run.json"
    whole, text = checkpoint.read_bytes(), record.read_text()
    for damaged, message in (
        (whole.replace(b"checkpoint-2", b"checkpoint-7", 1), "was written by schema checkpoint-7; this hyperrl reads"),
        (whole[:-100], "checkpoint is damaged, so the training cannot go on"),
        (whole[:-1] + bytes([whole[-1] ^ 1]), "its contents are not those of its checksum"),
        (b"", "expected a checkpoint of hyperrl's, got another file"),
    ):
        checkpoint.write_bytes(damaged)
        with pytest.raises(ValueError, match=message):
            train("pendulum", quick, resume=True, **arguments)
    checkpoint.write_bytes(whole)
    record.write_text(text.replace("run-1", "run-2"))
    with pytest.raises(ValueError, match=r"run\.json was written by schema run-2; this hyperrl reads run-1"):
        train("pendulum", quick, resume=True, **arguments)
    record.unlink()
    with pytest.raises(ValueError, match=r"is in the way, and no interrupted training: it has no run\.json"):
        train("pendulum", quick, resume=True, **arguments)
    record.write_text(text)
    train("pendulum", quick, resume=True, **arguments)
    (tmp_path / "x" / "run.json").write_text(text)
    with pytest.raises(ValueError, match="the training has not ended"):
        _ = Run.open(tmp_path / "x").result


def test_a_comment_in_a_recipe_is_no_other_training(quick: Path, tmp_path: Path) -> None:
    arguments: Any = dict(steps=200, out=tmp_path / "x", device="cpu", checkpoint_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        train("pendulum", quick, callback=Interrupt(at=100), **arguments)
    quick.write_text("# a comment\n" + QUICK.replace("n_epochs = 2", "n_epochs = 3"))
    with pytest.raises(ValueError, match=r"another training: recipe\.hyperparameters\.n_epochs was 2, now 3\."):
        train("pendulum", quick, resume=True, **arguments)
    quick.write_text("# a comment\n" + QUICK)
    train("pendulum", quick, resume=True, **arguments)


def test_family_and_recipe_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    recipe = tmp_path / "pendulum.toml"
    recipe.write_text(QUICK)
    train("pendulum", recipe, steps=1, out=tmp_path / "x", device="cpu")
    run = Run.open(tmp_path / "x")
    assert (run.family.name, run.agent.name) == ("pendulum", "pendulum")
    assert run.family.digest == hyperrl.load_family("pendulum").digest
    assert run.agent.definition == agent_spec(recipe).definition


def test_nothing_is_left_of_a_training_that_never_got_anywhere(quick: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train("pendulum", quick, steps=1000, out=tmp_path / "x", callback=Interrupt(at=1))
    assert list(tmp_path.iterdir()) == [quick]


def test_resume_begins_where_nothing_is(quick: Path, tmp_path: Path) -> None:
    train("pendulum", quick, steps=1, out=tmp_path / "x", resume=True)
    assert (tmp_path / "x" / "model.zip").exists()


def test_a_run_folder_is_never_overwritten(quick: Path, tmp_path: Path) -> None:
    out = tmp_path / "x"
    train("pendulum", quick, steps=1, out=out)
    before = {path: path.read_bytes() for path in out.iterdir()}
    for resume in (False, True):
        with pytest.raises(ValueError, match="exists already and is never overwritten"):
            train("pendulum", quick, steps=1, out=out, resume=resume)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"PPO"',
            '"PPPO"',
            "unknown algorithm 'PPPO': known are ['PPO', 'A2C', 'SAC', 'TD3', 'DDPG', 'DQN', 'TRPO', 'TQC', ",
        ),
        (
            '"hyper"',
            '"hiper"',
            "unknown policy 'hiper': known are ['hyper', 'film', 'concat', 'unaware'], or name any other",
        ),
        ("n_steps", "nsteps", "hyperparameters: PPO knows no 'nsteps': the names are ['learning_rate', 'n_steps',"),
        ("n_steps", "nsteps", "Did you mean 'n_steps'?"),
        ("[policy_kwargs]", "[policy_kwargs]\nrnk = 3", "policy_kwargs: HyperPolicy knows no 'rnk'"),
        ("[policy_kwargs]", "[policy_kwargs]\nbounds_loss = -1.0", "expected bounds_loss ≥ 0, got bounds_loss=-1.0"),
        ('"lin_1e-2"', '"linear"', "learning_rate must be a number, or such as 'lin_1e-3'"),
        ('"lin_1e-2"', '"lin_x"', "learning_rate must be a number, or such as 'lin_1e-3'"),
    ],
)
def test_faults_in_a_recipe_are_named(quick: Path, old: str, new: str, message: str) -> None:
    quick.write_text(QUICK.replace(old, new))
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        train("pendulum", quick, steps=1)
    assert str(error.value).startswith(str(quick))


def test_trpo_refuses_a_term_that_its_loss_would_leave_out(quick: Path) -> None:
    head = 'algorithm = "TRPO"\npolicy = "hyper"\nn_envs = 2\n'
    quick.write_text(f"{head}[hyperparameters]\n[policy_kwargs]\nbounds_loss = 0.1\n")
    with pytest.raises(ValueError, match="TRPO knows no 'bounds_loss': it is a term of the losses of PPO and A2C"):
        train("pendulum", quick, steps=1)


def test_bad_arguments_are_refused(quick: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one step"):
        train("pendulum", quick, steps=0)
    with pytest.raises(ValueError, match=r"^expected a seed ≥ 0, got seed=-1"):
        train("pendulum", quick, steps=1, seed=-1)
    with pytest.raises(ValueError, match=r"^expected a device such as .*, got 'gpu'"):
        train("pendulum", quick, steps=1, device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"^device 'cuda': torch finds no CUDA device here"):
            train("pendulum", quick, steps=1, device="cuda")
    with pytest.raises(ValueError, match=r"nowhere is no run folder.*"):
        Run.open(tmp_path / "nowhere")


def test_a_run_is_read_where_the_definitions_have_changed(quick: Path, tmp_path: Path) -> None:
    family = tmp_path / "mine.toml"
    shutil.copy(folder("envs") / "pendulum.toml", family)
    train(family, quick, steps=1, out=tmp_path / "x")
    family.unlink()
    quick.unlink()
    run = Run.open(tmp_path / "x")
    assert run.family.name == "mine"
    assert run.family.context_space.names == run.model("cpu").policy.context_space.names  # pyright: ignore[reportAttributeAccessIssue]
    assert run.agent.name == "quick"


@pytest.mark.slow
def test_hypernetwork_learns_what_domain_randomisation_cannot() -> None:
    """The demo in small: with an inverting motor, who does not know its sign cannot swing the pendulum up."""
    family = hyperrl.load_family("pendulum")
    returns = {
        agent: hyperrl.evaluate(train(family, agent, 300_000, device="cpu"), family, contexts=10, episodes=5).splits
        for agent in ("hyper-ppo", "unaware-ppo")
    }
    for split in returns["hyper-ppo"]:
        assert returns["hyper-ppo"][split].mean > returns["unaware-ppo"][split].mean + 400
    assert returns["hyper-ppo"]["train"].mean > -350
