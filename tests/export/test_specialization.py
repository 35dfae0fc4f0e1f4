from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from outside import python
from stable_baselines3 import A2C, PPO, SAC, HerReplayBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecExtractDictObs, VecNormalize
from torch import nn
from toy import ACTIONS, CONTEXT, IMAGE, VECTOR, Toy, perturb, toy

import hyperrl
from hyperrl import specialize
from hyperrl.export import formats as export
from hyperrl.policies import ContextExtractor, FilmPolicy, HyperSACPolicy
from hyperrl.policies.context import context_extractor
from tests.policies import test_policies
from tests.policies.test_policies import CASES, outputs
from tests.policies.test_policies_actor_critic import CASES as ACTOR_CRITIC_CASES
from tests.policies.test_policies_actor_critic import HYPER, make

FOLDABLE = [(variant, action) for variant, action in ACTOR_CRITIC_CASES if variant != "adapter"]
ALGORITHMS = {"PPO": PPO, "A2C": A2C}
ENTRIES: dict[str, dict[str, spaces.Space[Any]]] = {
    "vector": VECTOR,
    "image": {name: IMAGE[name] for name in ("camera", "context")},
    "discrete": {"observation": spaces.Discrete(4), "context": VECTOR["context"]},
    "several": IMAGE,
}


def trained(variant: str, env: Any, algorithm: Any = PPO, **kwargs: Any) -> Any:
    """A model whose generated weights differ from context to context, and are of order one."""
    model = make(variant, env, algorithm, trained=False, **kwargs)
    with torch.no_grad():
        for name, parameter in model.policy.named_parameters():
            if "generator" in name:
                parameter += 0.05 * torch.randn_like(parameter)
    return model


def contexts() -> st.SearchStrategy[list[float]]:
    return st.tuples(
        *[st.one_of(*[st.floats(low, high) for low, high in feature.bounds]) for feature in CONTEXT.features]
    ).map(list)


def observe(model: Any, context: Any, n: int = 9) -> tuple[dict[str, np.ndarray], Any]:
    """A batch in one context, as a model sees it and as its specialist does."""
    policy = model.policy
    model.observation_space.seed(0)
    rows = [model.observation_space.sample() for _ in range(n)]
    vector = np.tile(np.asarray(context, dtype=np.float32), (n, 1))
    if policy.context_slice is not None:
        whole = np.stack(rows)
        start, stop, _ = slice(*policy.context_slice).indices(whole.shape[1])
        whole[:, start:stop] = vector
        return whole, np.delete(whole, np.r_[start:stop], axis=1)  # pyright: ignore[reportReturnType]
    whole = {key: np.stack([row[key] for row in rows]) for key in rows[0]} | {"context": vector}
    rest = {key: value for key, value in whole.items() if key != "context"}
    return whole, next(iter(rest.values())) if len(rest) == 1 else rest


def everything(model: Any, context: Any) -> list[torch.Tensor]:
    """All that the networks return in one context, the target networks too; ``model`` may be a specialist."""
    policy = model.policy
    policy.set_training_mode(False)
    obs: Any = torch.as_tensor(np.random.default_rng(0).normal(size=(9, 5))).float()
    if context_extractor(policy) is not None:
        contexts = torch.as_tensor(np.tile(context, (9, 1))).float()
        is_dict = isinstance(model.observation_space, spaces.Dict)
        obs = dict(observation=obs, context=contexts) if is_dict else torch.cat([contexts, obs], dim=1)
    with torch.no_grad():
        if isinstance(policy, ActorCriticPolicy):
            actions = torch.as_tensor(np.random.default_rng(1).uniform(-1, 1, (9, 3))).float()
            return [policy._predict(obs, deterministic=True), *policy.evaluate_actions(obs, actions)]  # pyright: ignore[reportReturnType]
        results = outputs(model, obs)
        if hasattr(policy, "critic_target") and policy.critic_target is not None:
            values = policy.critic_target(obs, results[0].clamp(-1, 1))
            results += [values] if isinstance(values, torch.Tensor) else values
        for name in ("actor_target", "q_net_target", "quantile_net_target"):
            results += [getattr(policy, name)(obs)] if hasattr(policy, name) else []
        return results


def assert_same_policy(model: Any, plain: Any, context: Any, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    whole, rest = observe(model, context)
    expected = model.predict(whole, deterministic=True)[0]
    assert_allclose(plain.predict(rest, deterministic=True)[0], expected, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        obs, plain_obs = model.policy.obs_to_tensor(whole)[0], plain.policy.obs_to_tensor(rest)[0]
        actions = model.policy(obs)[0]
        for expected, got in zip(
            model.policy.evaluate_actions(obs, actions), plain.policy.evaluate_actions(plain_obs, actions), strict=True
        ):
            torch.testing.assert_close(got, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize(("variant", "action"), FOLDABLE)
def test_a_specialist_acts_as_the_model_does(variant: str, action: str) -> None:
    model = trained(variant, toy(action))
    for context in CONTEXT.sample("extrapolation", 3):
        plain = specialize(model, context)
        assert type(plain) is PPO
        assert type(plain.policy) is ActorCriticPolicy
        assert_same_policy(model, plain, context)


@pytest.fixture(scope="module", params=HYPER)
def hyper(request: pytest.FixtureRequest) -> Any:
    return request.param, trained(request.param, toy())


@settings(max_examples=10)
@given(context=contexts())
def test_in_any_context(hyper: Any, context: list[float]) -> None:
    variant, model = hyper
    if variant == "adapter":
        with pytest.raises(ValueError, match="head='adapter' adds a layer"):
            specialize(model, context)
    else:
        assert_same_policy(model, specialize(model, context), context)


@pytest.mark.parametrize(
    "options",
    [
        dict(net_arch=dict(pi=[8, 16, 4], vf=[12])),
        dict(net_arch=[]),
        dict(net_arch=dict(pi=[8])),
        dict(activation_fn=nn.ELU, optimizer_class=torch.optim.SGD, log_std_init=-1.0),
        dict(share_features_extractor=False),
        dict(normalize_images=False, features_extractor_kwargs=dict(normalized_image=True)),
        dict(features_extractor_kwargs=dict(cnn_output_dim=16), share_features_extractor=False),
    ],
    ids=str,
)
@pytest.mark.parametrize("entries", ENTRIES)
@pytest.mark.parametrize("variant", ["low_rank", "concat"])
def test_architectures_and_features_extractors(variant: str, entries: str, options: dict[str, Any]) -> None:
    model = trained(variant, toy("box", ENTRIES[entries]), policy_kwargs=options)
    plain = specialize(model, {"length": 0.7, "torque_gain": -1.2})
    assert isinstance(plain.observation_space, spaces.Dict) == (entries == "several")
    context = CONTEXT.vector({"length": 0.7, "torque_gain": -1.2})
    is_raw = entries == "image" and not model.policy.normalize_images  # numbers up to 255: rounding errors as large
    assert_same_policy(model, plain, context, **dict(rtol=1e-4, atol=1e-5) if is_raw else {})
    for name in ("net_arch", "activation_fn", "optimizer_class", "share_features_extractor"):
        assert getattr(plain.policy, name) == getattr(model.policy, name)
    kwargs = model.policy.optimizer_kwargs | plain.policy.optimizer_kwargs
    assert kwargs == model.policy.optimizer_kwargs  # whose Adam is fused besides


@pytest.mark.parametrize(("name", "head"), CASES, ids=str)
def test_every_algorithm(name: str, head: str) -> None:
    model = test_policies.trained(name, head)
    context = CONTEXT.vector({"length": 0.7, "torque_gain": -1.2})
    given: Any = context if name.startswith("CrossQ") else {"length": 0.7, "torque_gain": -1.2}  # has no names
    if head == "adapter":
        with pytest.raises(ValueError, match="head='adapter' adds a layer"):
            specialize(model, given)
        return
    plain = specialize(model, given)
    assert type(plain) is type(model)
    assert not any(type(module).__module__.startswith("hyperrl") for module in plain.policy.modules())
    for got, expected in zip(everything(plain, context), everything(model, context), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    if getattr(model, "log_ent_coef", None) is not None:
        torch.testing.assert_close(plain.log_ent_coef, model.log_ent_coef)
    plain.set_env(VecExtractDictObs(toy("discrete" if "DQN" in name else "box"), "observation"))
    plain.learn(32, reset_num_timesteps=False)
    assert plain.num_timesteps > model.num_timesteps


@pytest.mark.parametrize(
    "options",
    [
        dict(encoder="cos_sin", layer_norm=True, norm_bound=2.0),
        dict(encoder="none"),
        dict(generated="*.bias"),
        dict(head="full", init="hyperfan_in", base=False),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["PPO", "SAC"])
def test_ways_to_generate(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    model = test_policies.make(name, **options)
    perturb(model.policy)
    context = CONTEXT.vector({"length": 0.7})
    for got, expected in zip(everything(specialize(model, context), context), everything(model, context), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    if name == "PPO":  # what generates the weights is the same for all
        export.save(model, tmp_path / "open.pt2", format="pt2")  # which compares the two


def test_replay_with_hindsight_is_replay_with_hindsight() -> None:
    goals = {name: spaces.Box(-1, 1, (2,)) for name in ("achieved_goal", "desired_goal")}

    class Goals(Toy):
        def compute_reward(self, achieved: np.ndarray, desired: np.ndarray, info: Any) -> np.ndarray:
            return -np.abs(achieved - desired).sum(-1)

    def env(entries: dict[str, Any]) -> DummyVecEnv:
        return DummyVecEnv([lambda: Goals(entries, ACTIONS["box"])])

    options = dict(replay_buffer_class=HerReplayBuffer, learning_starts=8, batch_size=16, buffer_size=200, device="cpu")
    model = SAC(HyperSACPolicy, env(VECTOR | goals), **options).learn(20)
    entries = {name: space for name, space in VECTOR.items() if name != "context"}
    plain = specialize(model, {}, env=env(entries | goals)).learn(20)
    assert type(plain.policy).__name__ == "MultiInputPolicy"
    assert type(plain.replay_buffer) is HerReplayBuffer


def test_film_is_folded_into_the_layers_it_modulates() -> None:
    policy_kwargs = dict(net_arch=dict(pi=[8, 6], vf=[12]), activation_fn=nn.ELU)
    model = PPO(FilmPolicy, toy(), n_steps=16, batch_size=16, learning_rate=1e-2, policy_kwargs=policy_kwargs)
    model.learn(64)
    for context in CONTEXT.sample("extrapolation", 3):
        plain = specialize(model, context)
        assert type(plain.policy) is ActorCriticPolicy
        assert_same_policy(model, plain, context)


@pytest.mark.parametrize("include_context", [True, False])
@pytest.mark.parametrize("name", ["PPO", "SAC", "TD3", "DQN", "QRDQN", "TQC"])
def test_stock_policies_behind_an_extractor_of_contexts(name: str, include_context: bool) -> None:
    options = dict(features_extractor_class=ContextExtractor, net_arch=[12, 10])
    options["features_extractor_kwargs"] = dict(include_context=include_context)
    env = toy("discrete" if "DQN" in name else "box")
    sizes = test_policies.SIZES.get(name, test_policies.OFF_POLICY)
    model = test_policies.algorithm(name)("MultiInputPolicy", env, policy_kwargs=options, device="cpu", **sizes)
    model.learn(32)
    plain = specialize(model, {"length": 0.7})
    assert plain.policy.features_extractor_class is FlattenExtractor
    context = CONTEXT.vector({"length": 0.7})
    for got, expected in zip(everything(plain, context), everything(model, context), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_a_normalisation_layer_over_contexts_is_refused() -> None:
    options = dict(features_extractor_class=ContextExtractor, features_extractor_kwargs=dict(context_slice=(0, 4)))
    model = test_policies.algorithm("CrossQ")("MlpPolicy", toy(flat=True), policy_kwargs=options, device="cpu")
    with pytest.raises(ValueError, match="normalises the context as one input among others"):
        specialize(model, CONTEXT.default)


class Own(BaseFeaturesExtractor):
    """A features extractor that expects a Dict."""

    def __init__(self, observation_space: spaces.Dict) -> None:
        super().__init__(observation_space, features_dim=2)
        self.layer = nn.Linear(5, 2)

    def forward(self, observations: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.layer(observations["observation"])


def test_a_features_extractor_of_a_dict_keeps_its_dict() -> None:
    model = trained("low_rank", toy(), policy_kwargs=dict(features_extractor_class=Own))
    plain = specialize(model, CONTEXT.default)
    assert list(plain.observation_space.spaces) == ["observation"]
    whole, rest = observe(model, CONTEXT.default)
    expected = model.predict(whole, deterministic=True)[0]
    assert_allclose(plain.predict({"observation": rest}, deterministic=True)[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("context_slice", [(0, 2), (1, 3), (-2, None)])
def test_a_flat_observation(context_slice: tuple[int, int | None]) -> None:
    low, high = np.float32([0, 1, 2, 3, 4]), np.float32([5, 6, 7, 8, 9])
    space = spaces.Box(low, high)
    env = hyperrl.load_family("pendulum").make().unwrapped
    env.observation_space = space
    model = trained("low_rank", env, policy_kwargs=dict(context_slice=context_slice))
    plain = specialize(model, [4.5, 5.5])
    start, stop, _ = slice(*context_slice).indices(5)
    assert_array_equal(plain.observation_space.low, np.delete(low, np.r_[start:stop]))
    assert_same_policy(model, plain, [4.5, 5.5])
    with pytest.raises(ValueError, match="have no names"):
        specialize(model, {"length": 1.0})
    for wrong in ([1.0], [np.nan, 1.0]):
        with pytest.raises(ValueError, match=r"finite numbers of shape \(2,\)"):
            specialize(model, wrong)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_it_goes_on_learning(algorithm: str) -> None:
    family = hyperrl.load_family("pendulum")
    settings = dict(gamma=0.9, learning_rate=LinearSchedule(1e-3, 0.0, 1.0), ent_coef=0.01)
    model = trained("low_rank", family.vec_env(4), ALGORITHMS[algorithm], **settings).learn(128)
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    alone = VecExtractDictObs(family.vec_env(2, contexts=[family.context_space.default]), "observation")
    plain = specialize(model, {}, env=alone)
    assert_same_policy(model, plain, family.context_space.default)
    for name in ("gamma", "n_steps", "ent_coef", "num_timesteps", "seed", "_n_updates"):
        assert getattr(plain, name) == getattr(model, name)
    assert plain.lr_schedule(0.3) == model.lr_schedule(0.3) == pytest.approx(3e-4)
    start = {name: value.clone() for name, value in plain.policy.state_dict().items()}
    plain.learn(64, reset_num_timesteps=False)
    assert plain.num_timesteps == model.num_timesteps + 64
    assert all(not torch.equal(value, start[name]) for name, value in plain.policy.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in model.policy.state_dict().items())


def test_environments_may_come_later() -> None:
    family = hyperrl.load_family("pendulum")
    plain = specialize(trained("low_rank", family.vec_env(2)), {})
    for n in (2, 3):
        env = VecExtractDictObs(family.vec_env(n, contexts=[family.context_space.default]), "observation")
        if n == plain.n_envs:
            plain.set_env(env)
            plain.learn(32)
        else:
            with pytest.raises(AssertionError, match="number of environments"):
                plain.set_env(env)
    with pytest.raises(ValueError, match=r"VecExtractDictObs\(env, 'observation'\)"):
        specialize(trained("low_rank", family.vec_env(2)), {}, env=family.vec_env(2))
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        specialize(trained("low_rank", family.vec_env(2)), {}, env=VecExtractDictObs(toy(), "observation"))


def test_random_numbers_are_left_alone() -> None:
    model = trained("low_rank", toy())
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    expected = torch.rand(1), np.random.rand()  # noqa: NPY002
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    specialize(model, {})
    assert (torch.rand(1), np.random.rand()) == expected  # noqa: NPY002


def test_the_zip_loads_without_hyperrl(tmp_path: Path) -> None:
    env = VecNormalize(toy("lopsided box", IMAGE), norm_obs_keys=["observation"])
    for name, model in {
        "several": trained("low_rank", env),
        "sole": trained("chunked", toy("discrete")),
        "family": hyperrl.train("pendulum", "hyper-ppo", steps=1, device="cpu"),
    }.items():
        specialize(model, {"length": 0.7}).save(tmp_path / f"{name}.zip")
        whole, rest = observe(model, CONTEXT.vector({"length": 0.7}))
        observations = rest if isinstance(rest, dict) else {"": rest}
        actions = model.predict(whole, deterministic=True)[0]
        np.savez(tmp_path / f"{name}.npz", actions=actions, **{f"obs_{key}": v for key, v in observations.items()})
    program = """
import sys
sys.modules["hyperrl"] = None
import numpy as np
from stable_baselines3 import PPO
for name in ("several", "sole", "family"):
    data = np.load(name + ".npz")
    obs = {key[4:]: value for key, value in data.items() if key != "actions"}
    actions, _ = PPO.load(name + ".zip", device="cpu").predict(obs.get("", obs), deterministic=True)
    np.testing.assert_allclose(actions, data["actions"], rtol=1e-5, atol=1e-6)
"""
    python(tmp_path, "-c", program)


def test_normalised_observations_keep_their_statistics() -> None:
    """As docs/export.md says it."""
    family = hyperrl.load_family("pendulum")
    old = VecNormalize(family.vec_env(4), norm_obs_keys=["observation"], gamma=0.9, clip_obs=2.0)
    model = trained("low_rank", old).learn(256)
    alone = VecExtractDictObs(family.vec_env(4, contexts=[family.context_space.default]), "observation")
    new = VecNormalize(alone, gamma=old.gamma, clip_obs=old.clip_obs)
    new.obs_rms, new.ret_rms = old.obs_rms["observation"], old.ret_rms
    plain = specialize(model, {}, env=new)
    raw = {"observation": np.random.default_rng(0).normal(size=(4, 3)), "context": np.tile(CONTEXT.default, (4, 1))}
    expected = model.predict(old.normalize_obs(raw), deterministic=True)[0]
    assert_allclose(plain.predict(new.normalize_obs(raw["observation"]), deterministic=True)[0], expected, atol=1e-5)
    plain.learn(64, reset_num_timesteps=False)


@pytest.mark.parametrize("flat", [False, True])
def test_a_context_that_vec_normalize_normalises_is_refused(flat: bool) -> None:
    if flat:
        env = VecNormalize(VecExtractDictObs(toy(), "observation"))
        model = make("low_rank", env, policy_kwargs=dict(context_slice=(-2, None)))
        context: Any = [1.0, 1.0]
    else:
        model, context = make("low_rank", VecNormalize(toy())), {}
    with pytest.raises(ValueError, match=r"normalises the context .* norm_obs_keys=\['observation'\]"):
        specialize(model, context)
    model.get_vec_normalize_env().norm_obs = False
    specialize(model, context)


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"lenght": 0.7}, "Did you mean 'length'"),
        ({"length": 99.0}, "'length' must lie in"),
        ([1.0, 2.0], r"shape \(4,\)"),
        ([np.nan] * 4, "must lie in"),
    ],
)
def test_a_faulty_context_is_refused(context: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        specialize(make("low_rank", toy()), context)


def test_a_plain_policy_is_refused() -> None:
    plain = specialize(make("low_rank", toy()), {})
    with pytest.raises(ValueError, match="got one with ActorCriticPolicy"):
        specialize(plain, {})
