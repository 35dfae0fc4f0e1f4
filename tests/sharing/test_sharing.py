"""A shared agent is the run's, bit for bit, and no file of a stranger's is more than numbers and text."""

import json
import shutil
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from stable_baselines3.common.preprocessing import get_flattened_obs_dim

import hyperrl
from hyperrl.alignment.acting import find_aligned
from hyperrl.hypernet import HEADS
from hyperrl.inference import Estimator, InferringAgent
from hyperrl.rollouts import Agent
from hyperrl.sharing import AgentConfig, SharedAgent, load_agent, names, share
from hyperrl.training import Run, train
from hyperrl.training.weights import ModelRecord, save_weights
from hyperrl.utils import definitions
from hyperrl.utils.provenance import describe_model
from hyperrl.utils.records import encode, plain, read
from hyperrl.utils.tensors import pack, read_tensors, unpack, write_tensors
from tests.faults.test_damage import VALUES, damaged, places, with_value

ROLLOUT = "n_steps = 16\nbatch_size = 32\nn_epochs = 1"
REPLAY = "buffer_size = 200\nlearning_starts = 8"
KINDS: dict[str, tuple[str, str, str]] = {  # name = (keys above, hyperparameters, policy arguments)
    **{f"{head} head": ('algorithm = "PPO"\npolicy = "hyper"', ROLLOUT, f'head = "{head}"') for head in HEADS},
    **{kind: (f'algorithm = "PPO"\npolicy = "{kind}"', ROLLOUT, "") for kind in ("film", "concat", "unaware")},
    "normalised": ('algorithm = "PPO"\npolicy = "hyper"\nnormalize_observation = true', ROLLOUT, ""),
    "matched": ('algorithm = "PPO"\npolicy = "concat"\nmatch_parameters = "hyper-ppo"', ROLLOUT, ""),
    "gSDE": ('algorithm = "PPO"\npolicy = "hyper"', f"{ROLLOUT}\nuse_sde = true", 'activation_fn = "torch.nn:ELU"'),
    "aligned": ('algorithm = "PPO"\npolicy = "hyper"\nalignment = {width = 8, history = 4}', ROLLOUT, ""),
    "memory": ('algorithm = "RecurrentPPO"\npolicy = "unaware"\nobserve_last_step = true', ROLLOUT, ""),
    "hyper memory": ('algorithm = "RecurrentPPO"\npolicy = "hyper"\nobserve_last_step = true', ROLLOUT, ""),
    "DevicePPO": ('algorithm = "hyperrl.device:DevicePPO"\npolicy = "hyperrl.policies:HyperPolicy"', ROLLOUT, ""),
    "A2C": ('algorithm = "A2C"\npolicy = "hyper"', "", ""),
    "TRPO": ('algorithm = "TRPO"\npolicy = "hyper"', "n_steps = 16\nbatch_size = 32", ""),
    **{name: (f'algorithm = "{name}"\npolicy = "hyper"', REPLAY, "") for name in ("SAC", "TD3", "DDPG", "TQC")},
    "concat SAC": ('algorithm = "SAC"\npolicy = "concat"', REPLAY, ""),
    **{name: (f'algorithm = "{name}"\npolicy = "hyper"', REPLAY, "") for name in ("DQN", "QRDQN")},
}


def trained(kind: str, folder: Path) -> Run:
    """Train an agent of a kind, a little."""
    above, hyperparameters, policy = KINDS[kind]
    size = (
        "" if "match" in above else "lstm_hidden_size = 8\nnet_arch = []" if "Recurrent" in above else "net_arch = [8]"
    )
    recipe = folder / "tiny.toml"
    recipe.write_text(f"{above}\nn_envs = 2\n[hyperparameters]\n{hyperparameters}\n[policy_kwargs]\n{size}\n{policy}\n")
    family = "cartpole" if "DQN" in kind else "double_integrator"
    train(family, recipe, steps=48, seed=3, out=folder / "run", device="cpu")
    return Run.open(folder / "run")


@pytest.mark.parametrize("kind", KINDS)
def test_a_shared_agent_is_that_of_the_run_bit_for_bit(kind: str, tmp_path: Path) -> None:
    run = trained(kind, tmp_path)
    share(run, tmp_path / "agent")
    shutil.move(run.path, tmp_path / "elsewhere")
    expected, model = Run.open(tmp_path / "elsewhere").model("cpu"), load_agent(tmp_path / "agent", "cpu")
    assert type(model) is type(expected)
    assert type(model.policy) is type(expected.policy)
    for (name, one), (other_name, other) in zip(
        model.policy.state_dict().items(), expected.policy.state_dict().items(), strict=True
    ):
        assert name == other_name
        assert torch.equal(one, other)
    one, other = find_aligned(model), find_aligned(expected)
    if one is not None and other is not None:
        assert all(map(torch.equal, one.dynamics.state_dict().values(), other.dynamics.state_dict().values()))
    assert_said_whole(Run.open(tmp_path / "elsewhere"), tmp_path / "agent")
    vec_env: Any = run.family.vec_env(5, "extrapolation")
    agents = [Agent(m, vec_env.observation_space) for m in (model, expected)]
    observation, starts, rewards = vec_env.reset(), np.ones(5, dtype=bool), None
    for _ in range(3):
        actions, other_actions = (agent.act(observation, starts, rewards) for agent in agents)
        assert_array_equal(actions, other_actions)
        observation, rewards, starts, _ = vec_env.step(actions)
    tensors, record = read_tensors(ModelRecord, tmp_path / "agent" / "model.safetensors")
    assert not record.optimizers
    assert not any("optimizer" in name for name in tensors)


def assert_said_whole(run: Run, agent: Path) -> None:
    """The shared recipe has its defaults, and they are those that the run's model was made with."""
    config = SharedAgent.open(agent).config
    hyperparameters, policy = config.recipe["hyperparameters"], config.recipe["policy_kwargs"]
    assert hyperparameters.items() >= run.agent.definition.hyperparameters.items()
    assert {"learning_rate", "gamma"} <= hyperparameters.keys()
    assert "activation_fn" in policy
    assert "normalize_reward" in config.recipe
    one, other = (model.policy._get_constructor_parameters() for model in (run.model("cpu"), load_agent(agent, "cpu")))
    different = [name for name in one if repr(plain(one[name])) != repr(plain(other[name])) and name != "lr_schedule"]
    assert not different


def test_it_is_made_with_the_defaults_that_it_says(agent: Path) -> None:
    assert "`clip_range` 0.2, " in (agent / "README.md").read_text(encoding="utf-8")
    said = json.loads((agent / "config.json").read_text(encoding="utf-8"))
    assert said["defaults"]["policy_kwargs"]["activation_fn"] == "torch.nn:Tanh"
    said["defaults"]["hyperparameters"]["clip_range"] = 0.4  # as if that had been the default once
    said["defaults"]["policy_kwargs"]["activation_fn"] = "torch.nn:ELU"
    (agent / "config.json").write_text(json.dumps(said), encoding="utf-8")
    model: Any = load_agent(agent, "cpu")
    assert model.clip_range(1.0) == 0.4
    assert model.policy.activation_fn is torch.nn.ELU
    said["defaults"]["policy_kwargs"]["activation_fn"] = "os:system"
    (agent / "config.json").write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(ValueError, match=r"the recipe names code, which a shared agent may not: \['os:system'\]"):
        load_agent(agent, "cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = trained("low_rank head", tmp_path_factory.mktemp("shared"))
    hyperrl.evaluate(run.model("cpu"), run.family, contexts=2, episodes=1).of(run.training).save(run.evaluation_path)
    return run


@pytest.fixture(scope="module")
def original(run: Run) -> Path:
    return share(run, run.path.with_name("agent")).path


@pytest.fixture
def agent(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "agent"))


def test_it_learns_on(agent: Path, run: Run) -> None:
    model: Any = load_agent(agent, "cpu")
    before = model.policy.parameters_to_vector()
    model.learn(32, reset_num_timesteps=False)
    assert model.num_timesteps == run.result.model.steps + 32
    assert not np.array_equal(model.policy.parameters_to_vector(), before)


def test_what_it_says_of_itself(agent: Path, run: Run) -> None:
    config = SharedAgent.open(agent).config
    assert config.training == run.training
    assert config.features == run.family.context_space.features
    assert set(config.scores) == {"train", "interpolation", "extrapolation"}
    assert sorted(path.name for path in agent.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    from huggingface_hub import ModelCard

    data: Any = ModelCard.load(agent / "README.md").data
    assert data.library_name == "hyperrl"
    assert run.result.model.algorithm == "DevicePPO"  # the card says what loading makes
    assert data.tags[-1] == type(load_agent(agent, "cpu")).__name__ == "PPO"
    results = {
        result.dataset_name: result.metric_value
        for result in data.eval_results or ()
        if result.metric_type == "mean_reward"
    }
    assert results["double_integrator, train"] == pytest.approx(config.scores["train"].mean, rel=1e-4)


@pytest.mark.parametrize("name", [name for name in names() if name.split("/")[0] in definitions.names("envs")])
def test_those_that_come_along_load_and_score_as_they_say(name: str) -> None:
    agent = SharedAgent.open(name)
    assert name == f"{agent.family.name}/{agent.training.agent}"
    assert agent.family.source is not None, "the family has changed since: train the agent again"
    report = hyperrl.evaluate(agent.model("cpu"), agent.family, ("train",), 20, 1)
    said = agent.config.scores["train"]
    assert report.splits["train"].mean == pytest.approx(said.mean, rel=0.3, abs=5)
    observed = get_flattened_obs_dim(agent.model("cpu").observation_space)
    assert agent.config.result.model.parameters < 25_000 + 150 * max(0, observed - 30)


def test_names_that_are_not_found() -> None:
    with pytest.raises(ValueError, match=r"unknown agent 'pendulum/hyper-pp0': .* Did you mean 'pendulum/hyper-ppo'\?"):
        load_agent("pendulum/hyper-pp0")


def test_a_folder_of_another_kind_says_so(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is a run folder: open it with hyperrl\.Run\.open, or share it"):
        load_agent(run.path)
    with pytest.raises(ValueError, match=r"is no shared agent: it has no config\.json"):
        load_agent(tmp_path)


def test_an_agent_that_exists_is_not_overwritten(run: Run, agent: Path) -> None:
    with pytest.raises(ValueError, match="exists already and is never overwritten"):
        share(run, agent)


def edited(agent: Path, *place: Any, value: Any) -> None:
    path = agent / "config.json"
    path.write_text(json.dumps(with_value(json.loads(path.read_text()), place, value)))


FAULTS = {
    "newer": (("schema",), "agent-2", r"config\.json was written by schema agent-2; this hyperrl reads agent-1"),
    "foreign": (("schema",), "run-1", r"config\.json: expected a record of schema agent-1, got one of schema run-1"),
    "another hash": (("result", "model", "sha256"), "0" * 64, "holds another model than .*: their SHA-256 differ"),
    "another feature": (("features", 0, "unit"), "lb", "the features are not those of the family 'double_integrator'"),
    "irrelevant ones": (("training", "irrelevant"), 10**9, "the features are not those of the family"),
    "another definition": (("definition", "max_episode_steps"), 7, None),  # the family here is taken
    "no such policy": (("training", "recipe", "policy"), "hipper", "unknown policy 'hipper'.*Did you mean 'hyper'"),
    "other shapes": (("training", "recipe", "policy_kwargs", "net_arch"), [9], r"model\.safetensors does not fit"),
    "another algorithm": (("training", "recipe", "algorithm"), "A2C", "hyperparameters: A2C knows no 'clip_range'"),
    "own algorithm": (("training", "recipe", "algorithm"), "os:System", r"names code, .*\['os:System'\]"),
    "own policy": (("training", "recipe", "policy"), "antigravity:Fly", r"names code, .*\['antigravity:Fly'\]"),
    "own class": (
        ("training", "recipe", "policy_kwargs"),
        {"optimizer_kwargs": {"x_fn": "antigravity:fly"}},
        r"names code, .*\['antigravity:fly'\]",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_config_that_says_something_else_is_refused(fault: str, agent: Path) -> None:
    place, value, message = FAULTS[fault]
    edited(agent, *place, value=value)
    if message is None:
        load_agent(agent, "cpu")
        return
    with pytest.raises(ValueError, match=message):
        load_agent(agent, "cpu")


CODE = {
    "base": "antigravity:Fly-v0",
    "physics": "antigravity:Fly",
    "wrappers": ["antigravity:Fly"],
    "base_kwargs": {"xml_file": "/etc/passwd"},
}


@pytest.mark.parametrize("key", CODE)
def test_a_family_that_is_not_known_here_runs_no_code(key: str, agent: Path, run: Run) -> None:
    edited(agent, "training", "family", value="of_a_stranger")
    assert SharedAgent.open(agent).family.name == "of_a_stranger"
    assert SharedAgent.open(agent).family.digest == run.family.digest
    edited(agent, "definition", value=json.loads((agent / "config.json").read_text())["definition"] | {key: CODE[key]})
    with pytest.raises(ValueError, match="takes code that a shared agent may not name"):
        load_agent(agent, "cpu")
    assert load_agent(agent, "cpu", family=run.family).num_timesteps == run.result.model.steps


def test_numbers_that_are_none_are_refused(run: Run, agent: Path, tmp_path: Path) -> None:
    model = run.model("cpu")
    with torch.no_grad():
        next(model.policy.parameters()).fill_(torch.nan)
    save_weights(model, run.agent, agent / "model.safetensors", optimizers=False)
    edited(agent, "result", "model", "sha256", value=describe_model(model).sha256)
    with pytest.raises(ValueError, match=r"model\.safetensors: the parameter .* is not finite"):
        load_agent(agent, "cpu")


def test_sizes_that_name_code_are_refused(agent: Path) -> None:
    path = agent / "model.safetensors"
    tensors, record = read_tensors(ModelRecord, path)
    write_tensors(path, tensors, ModelRecord(record.numbers, {}, {}, {"features_extractor_class": "antigravity:Fly"}))
    with pytest.raises(ValueError, match=r"expected sizes .*, got \['features_extractor_class'\]"):
        load_agent(agent, "cpu")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
@settings(max_examples=10)
@given(data=st.data())
def test_a_damaged_file_is_named(file: str, data: st.DataObject, original: Path) -> None:
    path, content = original / file, (original / file).read_bytes()
    expected = load_agent(original, "cpu").policy.state_dict()
    try:
        path.write_bytes(data.draw(damaged(content)))
        got = load_agent(original, "cpu").policy.state_dict()
    except ValueError as error:
        assert file in str(error) or str(original) in str(error)  # noqa: PT017
    else:
        assert all(torch.equal(got[name], expected[name]) for name in expected)
    finally:
        path.write_bytes(content)


@settings(max_examples=40)
@given(data=st.data())
def test_a_config_with_another_value_is_named_or_loads(data: st.DataObject, original: Path) -> None:
    path = original / "config.json"
    content = path.read_text()
    document = json.loads(content)
    keys = ("training", "features", "result", "definition")
    found = [place for place in places(document) if place and place[0] in keys]
    place, value = data.draw(st.sampled_from(found)), data.draw(st.sampled_from(VALUES))
    try:
        path.write_text(json.dumps(with_value(document, place, value)))
        load_agent(original, "cpu")
    except ValueError as error:
        assert str(original) in str(error)  # noqa: PT017
    finally:
        path.write_text(content)


def test_a_run_whose_recipe_names_code_is_not_shared(tmp_path: Path) -> None:
    policy = "stable_baselines3.common.policies:MultiInputActorCriticPolicy"
    (tmp_path / "mine.toml").write_text(
        f'algorithm = "PPO"\npolicy = "{policy}"\nn_envs = 2\n[hyperparameters]\nn_steps = 8\nbatch_size = 16\n'
        "[policy_kwargs]\nnet_arch = [8]\n"
    )
    train("double_integrator", tmp_path / "mine.toml", steps=1, out=tmp_path / "run", device="cpu")
    with pytest.raises(ValueError, match=rf"cannot be shared: its recipe names code, \['{policy}'\]"):
        share(tmp_path / "run", tmp_path / "agent")
    assert not (tmp_path / "agent").exists()


def test_an_estimator_goes_along(run: Run, tmp_path: Path) -> None:
    copy = Run.open(shutil.copytree(run.path, tmp_path / "run"))
    model: Any = copy.model("cpu")
    reader = model.policy.features_extractor.reader
    estimator = Estimator(reader.other_space, model.action_space, copy.family.context_space)
    InferringAgent(model, estimator).save(copy.path / "estimator.safetensors")
    shared = share(copy, tmp_path / "agent")
    assert isinstance(InferringAgent.load(shared.path / "estimator.safetensors", shared.model("cpu")), InferringAgent)


class Hub(BaseHTTPRequestHandler):
    """As the Hub answers: user/agent has the files of a folder."""

    folder: Path
    commit = "0123456789012345678901234567890123456789"
    asked: list[str]

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        parts = self.path.split("?")[0].split("/")
        file = self.folder / parts[-1]
        known = parts[1:4] == ["user", "agent", "resolve"]
        self.asked.append(parts[-1])
        self.send_response(200 if known and file.is_file() else 404)
        if not known:
            self.send_header("X-Error-Code", "RepoNotFound")
        elif not file.is_file():
            self.send_header("X-Error-Code", "EntryNotFound")
        content = file.read_bytes() if known and file.is_file() else b""
        self.send_header("X-Repo-Commit", self.commit)
        self.send_header("ETag", '"' + parts[-1].replace(".", "") + '"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_an_agent_of_the_hub(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a server on this machine in the Hub's place."""
    import huggingface_hub.constants

    Hub.folder, Hub.asked = original, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    try:
        model = load_agent("hf:user/agent", "cpu")
        expected = load_agent(original, "cpu").policy.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in model.policy.state_dict().items())
        assert "README.md" not in Hub.asked
        with pytest.raises(ValueError, match=r"^hf:user/nothing cannot be had from the Hugging Face Hub: .*404"):
            load_agent("hf:user/nothing")
        with pytest.raises(ValueError, match=r"^hf:no name cannot be had from the Hugging Face Hub: .*Repo id"):
            load_agent("hf:no name")
    finally:
        server.shutdown()
        server.server_close()


def test_the_config_reads_as_it_was_written(original: Path) -> None:
    config = read(AgentConfig, original / "config.json")
    assert encode(config) == (original / "config.json").read_text()


def test_weights_of_a_foreign_file_are_refused(agent: Path) -> None:
    path = agent / "model.safetensors"
    tensors, text = unpack(path.read_bytes())
    path.write_bytes(pack(tensors, '{"schema": "estimator-1"}'))
    with pytest.raises(ValueError, match=r"model\.safetensors: expected a record of schema model-2"):
        load_agent(agent, "cpu")
    dropped = dict(tensors)
    dropped.pop(next(name for name in tensors if "weight" in name))
    path.write_bytes(pack(dropped, text))
    with pytest.raises(ValueError, match=r"model\.safetensors does not fit the recipe .*expected 'policy/.*got None"):
        load_agent(agent, "cpu")
