"""What holds for the hypernetwork policy of every algorithm, with every head."""

import copy
import functools
import inspect
import io
import itertools
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import sb3_contrib
import stable_baselines3
import torch
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation
from numpy.testing import assert_allclose, assert_array_equal
from outside import python
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecFrameStack
from torch import Tensor, nn
from toy import CONTEXT, observations, perturb, to_numpy, toy

import hyperrl.policies
from hyperrl.hypernet import HEADS, HyperNetwork
from hyperrl.policies import POLICY_OF, ContextPolicy, HyperPolicy
from hyperrl.policies.registry import serves

OPTIONS: dict[str, dict[str, Any]] = {
    "low_rank": dict(rank=3),
    "chunked": dict(chunk_size=60, chunk_embedding=4),
    "adapter": dict(bottleneck=8),
}
ON_POLICY = dict(n_steps=8, batch_size=16)
OFF_POLICY = dict(learning_starts=8, batch_size=16, train_freq=1, gradient_steps=1, buffer_size=200)
SIZES: dict[str, dict[str, Any]] = {
    "PPO": ON_POLICY | dict(n_epochs=2),
    "A2C": dict(n_steps=8),
    "TRPO": ON_POLICY,
    "TD3": OFF_POLICY | dict(policy_delay=1),
    "DQN": OFF_POLICY | dict(target_update_interval=4, tau=0.3),
    "QRDQN": OFF_POLICY | dict(target_update_interval=4, tau=0.3),
}
ON_POLICIES = ("PPO", "A2C", "TRPO")
ALGORITHMS = [*POLICY_OF, *(f"{name} gSDE" for name in ("PPO", "A2C", "TRPO", "SAC", "TQC", "CrossQ"))]
CASES = [(name, head) for name in ALGORITHMS for head in (("low_rank", "full") if "gSDE" in name else HEADS)]
every_case = pytest.mark.parametrize(("name", "head"), CASES, ids=lambda value: value)
every_algorithm = pytest.mark.parametrize("name", ALGORITHMS)


def algorithm(name: str) -> Any:
    return getattr(stable_baselines3, name, None) or getattr(sb3_contrib, name)


def make(name: str, head: str = "low_rank", env: Any = None, **policy_kwargs: Any) -> Any:
    name, _, gsde = name.partition(" ")
    kwargs = SIZES.get(name, OFF_POLICY) | (dict(use_sde=True) if gsde else {})
    flat = name == "CrossQ"
    env = toy("discrete" if "DQN" in name else "box", flat=flat) if env is None else env
    policy = getattr(hyperrl.policies, POLICY_OF[name])
    policy_kwargs = dict(head=head, net_arch=[12, 10]) | OPTIONS.get(head, {}) | policy_kwargs
    if flat:
        policy_kwargs["context_slice"] = (0, 4)
    if "share_features_extractor" in inspect.signature(policy).parameters:  # the other way than by default
        policy_kwargs.setdefault("share_features_extractor", policy is not HyperPolicy)
    return algorithm(name)(policy, env, policy_kwargs=policy_kwargs, seed=0, device="cpu", **kwargs)


@functools.cache
def trained(name: str, head: str = "low_rank") -> Any:
    """A model after some steps of learning, and its parameters before; not to be changed."""
    model = make(name, head)
    perturb(model.policy)
    model.before = copy.deepcopy(model.policy.state_dict())
    return model.learn(32)


def clone(model: Any) -> Any:
    """The same model through a zip: SB3's own cannot be deep-copied once gSDE has noise with a graph."""
    file = io.BytesIO()
    model.save(file)
    loaded = type(model).load(file, device="cpu")
    loaded.set_logger(Logger(None, []))
    if not isinstance(model, OnPolicyAlgorithm):
        loaded.replay_buffer = model.replay_buffer
    return loaded


def outputs(model: Any, obs: Any) -> list[Tensor]:
    """What the networks of a policy return for a batch of observations."""
    policy = model.policy
    policy.set_training_mode(False)
    if isinstance(policy, HyperPolicy):
        distribution = policy.get_distribution(obs).distribution
        return [distribution.mean, distribution.stddev, policy.predict_values(obs)]  # pyright: ignore[reportAttributeAccessIssue]
    if hasattr(policy, "actor"):
        actor = policy.actor
        if hasattr(actor, "get_action_dist_params"):
            mean, log_std, kwargs = actor.get_action_dist_params(obs)
            acts = [mean, actor.action_dist.proba_distribution(mean, log_std, **kwargs).distribution.stddev]
        else:
            acts = [actor(obs)]
        values = policy.critic(obs, torch.tanh(acts[0]))
        return [*acts, *([values] if isinstance(values, Tensor) else values)]
    return [policy.q_net(obs) if hasattr(policy, "q_net") else policy.quantile_net(obs)]


def encoders(policy: nn.Module) -> list[nn.Module]:
    """The encoders of the networks that learn."""
    names = [n for n, module in policy.named_modules() if isinstance(module, HyperNetwork) and "target" not in n]
    return list(dict.fromkeys(policy.get_submodule(name).encoder for name in names))  # pyright: ignore[reportReturnType]


def replace(obs: Any, **entries: Tensor) -> Any:
    """A batch with other observations, or other contexts."""
    if isinstance(obs, dict):
        return {**obs, **entries}
    return torch.cat([entries.get("context", obs[:, :4]), entries.get("observation", obs[:, 4:])], dim=1)


@every_case
def test_the_same_actions_after_saving_loading_and_copying(name: str, head: str) -> None:
    model = trained(name, head)
    obs = to_numpy(observations(model))
    expected = model.predict(obs, deterministic=True)[0]

    def check(other: Any) -> None:
        assert_array_equal(other.predict(obs, deterministic=True)[0], expected)

    loaded = clone(model)
    check(loaded)
    assert loaded.policy._get_constructor_parameters().keys() == model.policy._get_constructor_parameters().keys()
    file = io.BytesIO()
    model.policy.save(file)
    file.seek(0)
    policy = type(model.policy).load(file, device="cpu")
    check(policy)
    if hasattr(policy, "share_features_extractor"):
        assert policy.share_features_extractor == model.policy.share_features_extractor
    again = make(name, head)
    again.set_parameters(model.get_parameters(), exact_match=True)
    check(again)
    again = make(name, head)
    again.policy.load_state_dict(model.policy.state_dict())  # load_from_vector leaves running statistics as they are
    again.policy.load_from_vector(2 * model.policy.parameters_to_vector())
    again.policy.load_from_vector(model.policy.parameters_to_vector())
    check(again)
    if "gSDE" not in name:
        check(copy.deepcopy(policy))
        check(cloudpickle.loads(cloudpickle.dumps(policy)))


@pytest.mark.parametrize(("name", "head"), [(name, head) for name, head in CASES if name.split()[0] not in ON_POLICIES])
def test_what_acts_is_saved_and_loaded_without_its_policy(name: str, head: str) -> None:
    model = trained(name, head)
    part: Any = next(p for p in (getattr(model.policy, key, None) for key in ("actor", "q_net", "quantile_net")) if p)
    file = io.BytesIO()
    part.save(file)
    file.seek(0)
    loaded = type(part).load(file, device="cpu")
    obs = to_numpy(observations(model))
    assert_array_equal(loaded.predict(obs, deterministic=True)[0], part.predict(obs, deterministic=True)[0])
    assert loaded._get_constructor_parameters().keys() == part._get_constructor_parameters().keys()


@every_case
def test_everything_learns_and_is_optimised(name: str, head: str) -> None:
    """All parameters of the networks that learn, those of generators among them, have changed."""
    model = trained(name, head)
    now = dict(model.policy.named_parameters())
    online = [key for key in now if "target" not in key]
    assert [key for key in online if torch.equal(now[key], model.before[key])] == []
    optimised = [
        parameter
        for module in model.policy.modules()
        if isinstance(getattr(module, "optimizer", None), torch.optim.Optimizer)
        for group in module.optimizer.param_groups
        for parameter in group["params"]
    ]
    assert len({id(p) for p in optimised}) == len(optimised)
    assert {id(p) for p in optimised} == {id(now[key]) for key in online}


@every_case
def test_the_context_reaches_every_output(name: str, head: str) -> None:
    model = trained(name, head)
    obs = observations(model)
    other = replace(obs, context=torch.as_tensor(CONTEXT.sample("extrapolation", 12, 1), dtype=torch.float32))
    for a, b in zip(outputs(model, obs), outputs(model, other), strict=True):
        assert a.shape[0] == 12
        assert (a - b).flatten(1).abs().max(dim=1).values.min() > 0


@every_case
def test_permuting_the_batch_permutes_the_outputs(name: str, head: str) -> None:
    model = trained(name, head)
    obs = observations(model)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    permuted = {key: value[order] for key, value in obs.items()} if isinstance(obs, dict) else obs[order]
    for whole, part in zip(outputs(model, obs), outputs(model, permuted), strict=True):
        torch.testing.assert_close(whole[order], part)


@every_case
def test_the_hypernetwork_sees_each_normalised_context_once_and_nothing_else(name: str, head: str) -> None:
    model = trained(name, head)
    obs = observations(model)
    observation = (obs["observation"] if isinstance(obs, dict) else obs[:, 4:]).requires_grad_()
    seen: list[tuple[Tensor, Tensor]] = []
    handles = [
        encoder.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
        for encoder in encoders(model.policy)
    ]
    result = outputs(model, replace(obs, observation=observation))
    for handle in handles:
        handle.remove()
    picked = obs["context"] if isinstance(obs, dict) else obs[:, :4]
    center = (CONTEXT.low + CONTEXT.high) / 2  # a flat Box does not carry the training range: its bounds normalise
    expected = (
        CONTEXT.normalize(picked) if isinstance(obs, dict) else (picked.numpy() - center) / (CONTEXT.high - center)
    )
    assert len(seen) >= len(handles) > 0
    for context, embedding in seen:
        assert_allclose(
            np.unique(context.detach().numpy().round(4), axis=0), np.unique(expected.round(4), axis=0), atol=2e-4
        )
        assert len(context) == 3
        assert torch.autograd.grad(embedding.sum(), observation, allow_unused=True, retain_graph=True) == (None,)
    assert torch.autograd.grad(sum(r.sum() for r in result), observation)[0].abs().min(dim=1).values.max() > 0  # pyright: ignore[reportCallIssue]


@every_algorithm
def test_target_networks_follow(name: str) -> None:
    """Polyak averages of all parameters, generators among them; nothing else is learnt in buffers."""
    model = clone(trained(name))
    policy = model.policy
    constants = [f"reader.{name}" for name in ("center", "half_width")]  # they follow from the training range
    constants += [f"encoder.{name}" for name in ("low", "high", "inner", "chosen")]
    constants += ["_center", "_half_width"]  # of the action space
    assert [key for key, _ in policy.named_buffers() if not key.rpartition(".")[2].startswith(("ra_", "steps"))] == [
        key for key, _ in policy.named_buffers() if key.endswith(tuple(constants))
    ]
    pairs = [
        (policy.get_submodule(key.removesuffix("_target")), m) for key, m in policy.named_children() if "target" in key
    ]
    assert len(pairs) == {"SAC": 1, "TQC": 1, "TD3": 2, "DDPG": 2, "DQN": 1, "QRDQN": 1}.get(name.split()[0], 0)
    before = [copy.deepcopy(target) for _, target in pairs]
    if not pairs:
        return
    model.train(1, 16)
    if "DQN" in name:
        model._n_calls = 0
        model._on_step()
    for (online, target), was in zip(pairs, before, strict=True):
        names = [key for key, _ in target.named_parameters()]
        assert names == [key for key, _ in online.named_parameters()]
        assert any("generator" in key for key in names)
        for a, b, c in zip(online.parameters(), target.parameters(), was.parameters(), strict=True):
            torch.testing.assert_close(b, (1 - model.tau) * c + model.tau * a)


@every_algorithm
def test_training_goes_on_from_a_zip_exactly(name: str) -> None:
    """The optimisers' state included."""
    model = make(name).learn(32)
    before = model.policy.parameters_to_vector()
    vectors = []
    for continued in (clone(model), model):
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002 (SB3's own)
        if model.use_sde:  # loading has drawn noise anew
            continued.policy.reset_noise()
        if isinstance(continued, OnPolicyAlgorithm):
            continued.rollout_buffer = copy.deepcopy(model.rollout_buffer)
            continued.train()
        else:
            continued.train(3, 16)
        vectors.append(continued.policy.parameters_to_vector())
    assert_array_equal(*vectors)
    assert not np.array_equal(vectors[0], before)


@every_algorithm
def test_training_mode_is_set_of_all_but_targets(name: str) -> None:
    policy = make(name).policy
    for mode in (True, False):
        policy.set_training_mode(mode)
        assert {
            m.training for key, m in policy.named_modules() if isinstance(m, HyperNetwork) and "target" not in key
        } == {mode}
        assert not any(
            m.training for key, m in policy.named_modules() if isinstance(m, HyperNetwork) and "target" in key
        )


@every_algorithm
def test_all_contexts_start_from_networks_initialised_as_usual(name: str) -> None:
    model = make(name)
    obs = observations(model)
    other = replace(obs, context=torch.as_tensor(CONTEXT.sample("extrapolation", 12, 1), dtype=torch.float32))
    for a, b in zip(outputs(model, obs), outputs(model, other), strict=True):
        torch.testing.assert_close(a, b)
    if isinstance(model.policy, HyperPolicy):
        return  # orthogonal: see test_policies_actor_critic
    linears = [
        layer
        for module in model.policy.modules()
        if isinstance(module, HyperNetwork)
        for layer in module.head.base  # pyright: ignore[reportGeneralTypeIssues]
        if isinstance(layer, nn.Linear)
    ]
    assert len(linears) >= 3
    for layer in linears:  # uniform, as torch has it
        bound = layer.in_features**-0.5
        assert 0.7 * bound < layer.weight.abs().max() <= bound
        assert layer.bias.abs().max() <= bound


OTHERS = sorted({*POLICY_OF.values(), "ConcatPolicy", "FilmPolicy", "UnawarePolicy"})
LATE = {  # pairs that end in an error of SB3's, most of them in training
    *itertools.product(("PPO", "A2C", "TRPO"), ("HyperSACPolicy", "HyperTQCPolicy", "HyperCrossQPolicy")),
    *itertools.product(("SAC", "TQC", "CrossQ"), ("HyperSACPolicy", "HyperTD3Policy", "HyperTQCPolicy")),
    ("CrossQ", "HyperPolicy"),
    *itertools.product(("TD3", "DDPG"), ("HyperDQNPolicy", "HyperQRDQNPolicy")),  # at once: such actions have no number
}


@pytest.mark.parametrize("policy", OTHERS)
@pytest.mark.parametrize("name", POLICY_OF)
def test_the_policy_of_another_algorithm_is_refused(name: str, policy: str) -> None:
    policy_class: type[ContextPolicy] = getattr(hyperrl.policies, policy)
    env = toy("discrete" if "DQN" in name else "box", flat=True)
    kwargs = SIZES.get(name, OFF_POLICY) | dict(policy_kwargs=dict(context_slice=(0, 4), net_arch=[8]))
    made = functools.partial(algorithm(name), policy_class, env, device="cpu", **kwargs)
    if name in serves(policy_class):
        made()
        return
    if (name, policy) in LATE:
        with pytest.raises((TypeError, ValueError, AttributeError)):
            made().learn(64)
        return
    message = rf"{policy} is a policy for .*\.{POLICY_OF[name]} for .*{name}\b.*ContextExtractor"
    with pytest.raises((AttributeError, ValueError), match=message):
        made()


@pytest.mark.parametrize("policy", ["HyperPolicy", "ConcatPolicy"])
def test_recurrent_and_masked_policies_are_refused(policy: str) -> None:
    policy_class = getattr(hyperrl.policies, policy)
    with pytest.raises(AttributeError, match=f"{policy} has no 'lstm_actor'.*{policy} is a policy for PPO, A2C, TRPO"):
        sb3_contrib.RecurrentPPO(policy_class, toy(), device="cpu")
    with pytest.raises(ValueError, match="must subclass MaskableActorCriticPolicy"):
        sb3_contrib.MaskablePPO(policy_class, toy("discrete"), device="cpu")


def test_concatenation_goes_with_masked_actions() -> None:
    kwargs = dict(features_extractor_class=hyperrl.policies.ContextExtractor, net_arch=[8])
    env = toy("discrete")
    model: Any = sb3_contrib.MaskablePPO("MultiInputPolicy", env, policy_kwargs=kwargs, device="cpu", **ON_POLICY)
    before = model.policy.parameters_to_vector()
    assert not np.array_equal(model.learn(32, use_masking=False).policy.parameters_to_vector(), before)
    assert model.policy.features_extractor.features_dim == 5 + 4


def test_stacked_frames_go_inside() -> None:
    """SB3's VecFrameStack would stack the context as well."""
    env = hyperrl.ContextEnv(
        FrameStackObservation(gym.make("Pendulum-v1"), 3), CONTEXT, lambda env, c: setattr(env, "l", c["length"])
    )
    model: Any = algorithm("PPO")(HyperPolicy, env, n_steps=16, batch_size=16, device="cpu").learn(16)
    assert model.policy.context_space == CONTEXT
    assert model.policy.features_dim == 3 * 3
    stacked: Any = VecFrameStack(hyperrl.load_family("pendulum").vec_env(2), 3).observation_space
    assert stacked["context"].shape == (3 * 4,)


@every_algorithm
def test_an_unknown_keyword_argument_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"knows no 'netarch'.* Did you mean 'net_arch'"):
        make(name, netarch=[8])
    with pytest.raises(ValueError, match=r"unknown head 'chunky'.* Did you mean 'chunked'"):
        make(name, head="chunky")


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if "gSDE" in name])
def test_the_adapter_is_refused_with_gsde(name: str) -> None:
    with pytest.raises(ValueError, match="use_sde=True with head='adapter'"):
        make(name, "adapter")


def test_sb3_contrib_is_imported_by_those_who_need_it(tmp_path: Path) -> None:
    program = """
import sys
import hyperrl.policies
assert "sb3_contrib" not in sys.modules
hyperrl.policies.HyperTQCPolicy
assert "sb3_contrib" in sys.modules
"""
    python(tmp_path, "-c", program)


@every_algorithm
def test_bad_observation_spaces_are_refused(name: str) -> None:
    policy = getattr(hyperrl.policies, POLICY_OF[name.split()[0]])
    box = spaces.Box(-1, 1, (3,))
    actions = spaces.Discrete(3) if "DQN" in name else box
    with pytest.raises(ValueError, match=r"no entry 'context': its entries are \['contxt', 'obs'\]\. Did you mean"):
        policy(spaces.Dict(contxt=box, obs=box), actions, lambda _: 1e-3)
    with pytest.raises(ValueError, match=r"the observation is flat.*context_slice=\(-4, None\)"):
        policy(box, actions, lambda _: 1e-3)
