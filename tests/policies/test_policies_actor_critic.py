import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.testing import assert_allclose, assert_array_equal
from outside import python
from sb3_contrib import TRPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.torch_layers import CombinedExtractor
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn
from toy import ACTIONS, CONTEXT, IMAGE, VECTOR, observations, perturb, to_numpy, toy

import hyperrl
from hyperrl.hypernet import Alternating
from hyperrl.policies import ConcatPolicy, ContextPolicy, HyperPolicy, UnawarePolicy

VARIANTS: dict[str, tuple[type[ContextPolicy], dict[str, Any]]] = {
    "low_rank": (HyperPolicy, dict(head="low_rank", rank=3)),
    "full": (HyperPolicy, dict(head="full")),
    "chunked": (HyperPolicy, dict(head="chunked", chunk_size=60, chunk_embedding=4)),
    "modulated": (HyperPolicy, dict(head="modulated")),
    "adapter": (HyperPolicy, dict(head="adapter", bottleneck=8)),
    "shared": (HyperPolicy, dict(share_encoder=True)),
    "gSDE": (HyperPolicy, dict(use_sde=True)),
    "concat": (ConcatPolicy, {}),
    "concat gSDE": (ConcatPolicy, dict(use_sde=True)),
    "unaware": (UnawarePolicy, {}),
}
HYPER = [name for name, (policy, _) in VARIANTS.items() if policy is HyperPolicy]
CASES = [(variant, "box") for variant in VARIANTS] + [
    (variant, action) for variant in VARIANTS for action in ACTIONS if action != "box" and "gSDE" not in variant
]
every_case = pytest.mark.parametrize(("variant", "action"), CASES)
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def make(variant: str, env: Any, algorithm: Any = PPO, trained: bool = True, **kwargs: Any) -> Any:
    """A model; ``trained``: as after learning, generated weights differ from context to context."""
    policy, policy_kwargs = VARIANTS[variant]
    policy_kwargs = policy_kwargs | kwargs.pop("policy_kwargs", {})
    kwargs["use_sde"] = policy_kwargs.pop("use_sde", False)
    sizes = dict(n_steps=16, batch_size=16, n_epochs=2) if algorithm is PPO else dict(n_steps=16)
    model = algorithm(policy, env, policy_kwargs=policy_kwargs, seed=0, device="cpu", **(sizes | kwargs))
    if trained:
        perturb(model.policy)
    return model


@every_case
def test_entry_points_agree(variant: str, action: str) -> None:
    policy = make(variant, toy(action)).policy
    obs = observations(make(variant, toy(action)))
    actions, values, log_prob = policy(obs)
    evaluated_values, evaluated_log_prob, entropy = policy.evaluate_actions(obs, actions)
    distribution = policy.get_distribution(obs)
    torch.testing.assert_close(evaluated_values, values)
    torch.testing.assert_close(evaluated_log_prob, log_prob)
    torch.testing.assert_close(policy.predict_values(obs), values)
    torch.testing.assert_close(distribution.log_prob(actions), log_prob)
    torch.testing.assert_close(distribution.entropy(), entropy)
    assert values.shape == (12, 1)
    assert log_prob.shape == (12,)
    assert actions.shape == (12, *policy.action_space.shape)


@every_case
def test_ppo_ratio_is_one_before_the_first_update(variant: str, action: str) -> None:
    model = make(variant, toy(action))
    _, callback = model._setup_learn(64)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, 16)
    for batch in model.rollout_buffer.get(16):
        actions = batch.actions.long().flatten() if action == "discrete" else batch.actions
        values, log_prob, _ = model.policy.evaluate_actions(batch.observations, actions)
        torch.testing.assert_close((log_prob - batch.old_log_prob).exp(), torch.ones(16), rtol=0, atol=1e-5)
        torch.testing.assert_close(values.flatten(), batch.old_values, rtol=1e-5, atol=1e-5)


@every_variant
def test_only_the_unaware_policy_ignores_the_context(variant: str) -> None:
    model = make(variant, toy())
    obs = observations(model)
    other = {**obs, "context": torch.as_tensor(CONTEXT.sample("extrapolation", 12, 1), dtype=torch.float32)}
    same = [torch.allclose(a, b) for a, b in zip(model.policy(obs, True), model.policy(other, True), strict=True)]
    assert same[:2] == [variant == "unaware"] * 2
    std = [model.policy.get_distribution(o).distribution.stddev for o in (obs, other)]
    assert torch.allclose(*std) == (variant in ("concat", "unaware"))  # gSDE's follows the hidden layer


@pytest.mark.parametrize("head", [variant for variant in HYPER if variant not in ("adapter", "gSDE")])
def test_generated_weights_are_the_network_of_a_context(head: str) -> None:
    model = make(head, toy())
    obs = observations(model, contexts=1)
    actor = copy.deepcopy(model.policy.actor.head.base)
    actor.load_state_dict(model.policy.actor.weights(torch.as_tensor(CONTEXT.normalize(obs["context"][0])).float()))
    torch.testing.assert_close(actor(obs["observation"]), model.policy.get_distribution(obs).distribution.mean)


@every_case
def test_every_parameter_learns(variant: str, action: str) -> None:
    """Every parameter has a gradient from the loss it belongs to, and the optimiser trains it."""
    model = make(variant, toy(action))
    policy = model.policy
    obs = observations(model)
    values, log_prob, _ = policy.evaluate_actions(obs, policy(obs)[0].detach())
    actor_loss = (log_prob * torch.randn(12)).sum()
    critic_loss = (values.flatten() * torch.randn(12)).sum()
    names = [name for name, _ in policy.named_parameters()]
    parameters = list(policy.parameters())
    reached = {}
    for loss_name, loss in (("actor", actor_loss), ("critic", critic_loss)):
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        reached[loss_name] = {n for n, g in zip(names, gradients, strict=True) if g is not None and g.abs().sum() > 0}
    shared = {name for name in names if name.startswith("actor.encoder")} if variant == "shared" else set()
    assert reached["actor"] | reached["critic"] == set(names)
    assert reached["actor"] & reached["critic"] == shared
    assert not any(name.startswith("critic") for name in reached["actor"])
    optimised = {id(p) for group in policy.optimizer.param_groups for p in group["params"]}
    assert optimised == {id(p) for p in parameters}


@pytest.mark.parametrize(("algorithm", "entries"), [(PPO, IMAGE), (A2C, VECTOR)], ids=["image", "vector"])
@every_variant
def test_save_and_load(variant: str, entries: Any, algorithm: Any, tmp_path: Path) -> None:
    kwargs = dict(share_features_extractor=False, net_arch=dict(pi=[8], vf=[8, 8]))
    model = make(variant, toy(entries=entries), algorithm, policy_kwargs=kwargs).learn(128)
    obs = {key: value.numpy() for key, value in observations(model).items()}
    model.save(tmp_path / "agent.zip")
    loaded = algorithm.load(tmp_path / "agent.zip", device="cpu")
    assert_array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
    assert loaded.policy.context_space == CONTEXT
    model.policy.save(tmp_path / "policy.pt")
    policy = VARIANTS[variant][0].load(str(tmp_path / "policy.pt"), device="cpu")
    assert_array_equal(policy.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
    assert not policy.share_features_extractor
    assert policy.use_sde == ("gSDE" in variant)
    again = make(variant, toy(entries=entries), algorithm, policy_kwargs=kwargs)
    again.set_parameters(model.get_parameters(), exact_match=True)
    assert_array_equal(again.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
    assert_array_equal(again.policy.parameters_to_vector(), model.policy.parameters_to_vector())


def test_a_saved_agent_loads_where_hyperrl_is_only_installed(tmp_path: Path) -> None:
    make("low_rank", toy()).save(tmp_path / "agent.zip")
    program = f"""
import hyperrl
from stable_baselines3 import PPO
space = PPO.load({str(tmp_path / "agent.zip")!r}, device="cpu").policy.context_space
print(space.names, space.units, space.features[3].train)
"""
    printed = python(tmp_path, "-c", program)
    assert printed.split() == f"{CONTEXT.names} {CONTEXT.units} {CONTEXT.features[3].train}".split()


@every_variant
def test_the_same_seed_gives_the_same_model(variant: str) -> None:
    first, second, third = (make(variant, toy(), trained=False).learn(128) for _ in range(3))
    assert_array_equal(first.policy.parameters_to_vector(), second.policy.parameters_to_vector())
    third.learn(128)
    assert not np.array_equal(first.policy.parameters_to_vector(), third.policy.parameters_to_vector())


@every_variant
def test_one_observation_and_a_batch(variant: str) -> None:
    model = make(variant, toy())
    obs = {key: value.numpy() for key, value in observations(model).items()}
    batch, _ = model.predict(obs, deterministic=True)
    assert batch.shape == (12, 3)
    for i in range(12):
        single, _ = model.predict({key: value[i] for key, value in obs.items()}, deterministic=True)
        assert_allclose(single, batch[i], atol=1e-5)
    model.policy.load_from_vector(model.policy.parameters_to_vector())
    if "gSDE" in variant:  # SB3's own policies cannot be copied either: the noise has a graph
        return
    assert_array_equal(copy.deepcopy(model.policy).predict(obs, deterministic=True)[0], batch)


@every_variant
def test_a_flat_observation_with_a_slice_equals_the_dict(variant: str) -> None:
    entries = toy().observation_space["observation"], toy().observation_space["context"]
    low, high = (np.concatenate([getattr(entry, side) for entry in entries]) for side in ("low", "high"))
    policy, kwargs = VARIANTS[variant]
    torch.manual_seed(0)  # gSDE's noise
    action_space = ACTIONS["box"]
    # The flat Box does not carry the training range: a Dict whose context is a plain Box is the same.
    plain = spaces.Dict({"observation": entries[0], "context": spaces.Box(entries[1].low, entries[1].high)})
    from_dict = policy(plain, action_space, lambda _: 1e-3, **kwargs)
    from_flat = policy(spaces.Box(low, high), action_space, lambda _: 1e-3, context_slice=(-4, None), **kwargs)
    from_flat.load_state_dict(from_dict.state_dict())
    obs = observations(make(variant, toy()))
    flat = torch.cat([obs["observation"], obs["context"]], dim=1)
    for a, b in zip(from_dict(obs, True), from_flat(flat, True), strict=True):
        torch.testing.assert_close(a, b)
    assert from_flat.context_space is None


def test_truncation_bootstraps_with_the_old_context_and_termination_does_not() -> None:
    calls: list[np.ndarray] = []

    def rollout(family: str, n_steps: int) -> tuple[Any, np.ndarray]:
        model = make(
            "low_rank", hyperrl.load_family(family).vec_env(2, seed=0), n_steps=n_steps, batch_size=2 * n_steps
        )
        calls.clear()
        predict_values = model.policy.predict_values
        model.policy.predict_values = lambda obs: (calls.append(obs["context"].numpy()), predict_values(obs))[1]
        _, callback = model._setup_learn(2 * n_steps)
        first = model._last_obs["context"]
        model.collect_rollouts(model.env, callback, model.rollout_buffer, n_steps)
        return model, first

    model, first = rollout("pendulum", 210)
    assert_array_equal(np.concatenate(calls[:2]), first)  # the two episodes end together, at step 200
    assert len(calls) == 3  # and once for the last step of the rollout
    assert not np.array_equal(model._last_obs["context"], first)
    rollout("cartpole", 100)
    assert len(calls) == 1  # poles fall, which is no reason to bootstrap


@pytest.mark.parametrize("algorithm", [PPO, A2C])
def test_vec_normalize_of_the_observation_alone_is_fine(algorithm: Any) -> None:
    env = VecNormalize(hyperrl.load_family("pendulum").vec_env(2), norm_obs_keys=["observation"])
    model = make("low_rank", env, algorithm).learn(64)
    assert model.policy.context_space == CONTEXT
    assert evaluate_policy(model, env, n_eval_episodes=2)[0] < 0


def test_a_normalised_context_is_warned_about() -> None:
    env = VecNormalize(hyperrl.load_family("pendulum").vec_env(2))
    with pytest.warns(UserWarning, match=r"context lies outside its bounds .* norm_obs_keys"):
        make("low_rank", env).learn(1)


@every_variant
def test_the_standard_deviation_is_logged_where_there_is_one(variant: str) -> None:
    for action in ("box",) if "gSDE" in variant else ("box", "discrete"):
        model = make(variant, toy(action), trained=False)
        assert hasattr(model.policy, "log_std") == (action == "box")
        model.learn(64, log_interval=10)
        assert ("train/std" in model.logger.name_to_value) == (action == "box")
        if action == "box":
            assert 0.9 < model.logger.name_to_value["train/std"] < 1.1


def test_callbacks(tmp_path: Path) -> None:
    family = hyperrl.load_family("cartpole")
    evaluation = EvalCallback(family.vec_env(2, split="interpolation"), n_eval_episodes=2, eval_freq=16, verbose=0)
    checkpoints = CheckpointCallback(32, str(tmp_path))
    make("low_rank", family.vec_env(2)).learn(64, callback=[evaluation, checkpoints])
    assert evaluation.last_mean_reward > 0
    assert len(list(tmp_path.glob("*.zip"))) == 1


def test_base_and_hypernetwork_learn_in_turn() -> None:
    model = make("shared", toy())
    networks = nn.ModuleList([model.policy.actor, model.policy.critic])
    base = {id(p) for network in networks for p in network.head.base.parameters()}  # pyright: ignore[reportAttributeAccessIssue]
    schedule = Alternating(*networks)
    before: list[torch.Tensor] = []
    is_base = []

    class Turns(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            schedule.step()
            before[:] = [p.detach().clone() for p in networks.parameters()]

        def _on_rollout_start(self) -> None:
            pairs = zip(networks.parameters(), before, strict=bool(before))
            is_base.append({id(p) in base for p, b in pairs if not torch.equal(p, b)})

    model.learn(64 * 5, callback=Turns())
    assert is_base == [set(), {True}, {False}, {True}, {False}]


def test_keyword_arguments_are_honoured() -> None:
    arguments = dict(
        net_arch=dict(pi=[7], vf=[]),
        activation_fn=nn.ReLU,
        optimizer_class=torch.optim.SGD,
        optimizer_kwargs=dict(momentum=0.5),
        log_std_init=-1.5,
        features_extractor_class=CombinedExtractor,
        features_extractor_kwargs=dict(cnn_output_dim=9),
        share_features_extractor=False,
        normalize_images=False,
        embedding=(5,),
        ortho_init=False,
    )
    entries = {**IMAGE, "camera": spaces.Box(0, 1, (3, 36, 36))}
    policy = make("low_rank", toy(entries=entries), trained=False, policy_kwargs=arguments).policy
    assert [type(layer) for layer in policy.actor.head.base] == [nn.Linear, nn.ReLU, nn.Linear]
    assert [type(layer) for layer in policy.critic.head.base] == [nn.Linear]
    assert policy.actor.head.base[0].in_features == 9 + 5 if isinstance(policy.pi_features_extractor, nn.Module) else 0
    assert policy.actor.encoder[0].out_features == 5
    assert isinstance(policy.optimizer, torch.optim.SGD)
    assert policy.optimizer.defaults["momentum"] == 0.5
    assert policy.pi_features_extractor is not policy.vf_features_extractor
    assert_allclose(
        policy.get_distribution(observations(make("full", toy(entries=entries)))).distribution.stddev.detach(),
        np.exp(-1.5),
    )


@every_variant
def test_initialisation_is_stable_baselines(variant: str) -> None:
    """Orthogonal weights with SB3's gains, so that actions start near zero in every context."""
    policy = make(variant, toy(), trained=False).policy
    is_hyper = isinstance(policy, HyperPolicy)
    layers = policy.actor.head.base if is_hyper else [*policy.mlp_extractor.policy_net, policy.action_net]
    actor = [layer for layer in layers if isinstance(layer, nn.Linear)]  # pyright: ignore[reportGeneralTypeIssues]
    weight = actor[0].weight.detach()
    gram = weight.T @ weight if weight.shape[0] > weight.shape[1] else weight @ weight.T
    torch.testing.assert_close(gram, 2 * torch.eye(len(gram)), rtol=0, atol=1e-5)
    assert actor[-1].weight.norm() < 0.02
    assert policy.get_distribution(observations(make(variant, toy()))).distribution.mean.abs().max() < 0.1


def space(**entries: spaces.Space[Any]) -> spaces.Dict:
    return spaces.Dict(entries)


BOX = spaces.Box(-1, 1, (3,))


@pytest.mark.parametrize(
    ("make_policy", "message"),
    [
        (
            lambda new: new(space(obs=BOX, contxt=BOX)),
            r"no entry 'context': its entries are \['contxt', 'obs'\]\. Did you mean",
        ),
        (lambda new: new(space(context=BOX)), "no entry besides the context"),
        (
            lambda new: new(space(obs=BOX, context=spaces.Discrete(3))),
            "the context must be a one-dimensional Box of floats",
        ),
        (lambda new: new(BOX), r"the observation is flat.*context_slice=\(-4, None\)"),
        (lambda new: new(BOX, context_slice=(-3, None)), "takes 3 of the observation's 3"),
        (lambda new: new(BOX, context_slice=(2, 1)), "takes 0 of the observation's 3"),
        (lambda new: new(space(obs=BOX, context=BOX), context_slice=(0, 1)), "context_slice is for flat observations"),
        (lambda new: new(spaces.Discrete(3)), "expected a Dict observation"),
        (
            lambda new: new(space(obs=BOX, context=BOX), use_sde=True, head="adapter"),
            "use_sde=True with head='adapter'",
        ),
        (lambda new: new(space(obs=BOX, context=BOX), netarch=[8]), "knows no 'netarch'.* Did you mean 'net_arch'"),
        (lambda new: new(space(obs=BOX, context=BOX), ranks=3), "knows no 'ranks'.* Did you mean 'rank'"),
        (lambda new: new(space(obs=BOX, context=BOX), head="chunky"), "unknown head 'chunky'.* Did you mean 'chunked'"),
        (
            lambda new: new(space(obs=BOX, context=BOX), head="chunked", rank=3),
            r"head 'chunked' has no option 'rank': its options are \['chunk_size', 'chunk_embedding'\]",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make_policy: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_policy(lambda s, **kwargs: HyperPolicy(s, ACTIONS["box"], lambda _: 1e-3, **kwargs))


@pytest.mark.parametrize("algorithm", [PPO, A2C, TRPO])
@pytest.mark.parametrize("use_expln", [False, True])
@pytest.mark.parametrize("full_std", [False, True])
@pytest.mark.parametrize("variant", ["gSDE", "concat gSDE"])
def test_gsde_as_stable_baselines_has_it(variant: str, full_std: bool, use_expln: bool, algorithm: Any) -> None:
    """Noise linear in the last hidden layer, never in the context, and squashed into the bounds where asked for."""
    kwargs = dict(net_arch=[7, 6], full_std=full_std, use_expln=use_expln, squash_output=True, log_std_init=-1.0)
    sizes = dict(batch_size=16) if algorithm is TRPO else {}
    model = make(variant, toy("lopsided box"), algorithm, policy_kwargs=kwargs, n_steps=16, **sizes)
    policy = model.policy
    obs = observations(model)
    distribution = policy.get_distribution(obs)
    assert distribution._latent_sde.shape == (12, 6)
    assert policy.log_std.shape == (6, 2 if full_std else 1)
    std = distribution.get_std(policy.log_std)
    torch.testing.assert_close(std, torch.full((6, 2), np.exp(-1.0)).float())
    variance = distribution._latent_sde.square() @ std.square()
    torch.testing.assert_close(distribution.distribution.variance, variance + distribution.epsilon)
    actions = model.predict(to_numpy(obs))[0]
    assert (policy.action_space.low < actions).all()
    assert (actions < policy.action_space.high).all()
    before = policy.log_std.detach().clone()
    model.learn(64)
    assert not torch.equal(policy.log_std, before)


def test_gsde_of_a_generated_actor() -> None:
    """Features of the noise are the last hidden layer of the network of the context."""
    model = make("gSDE", toy(), policy_kwargs=dict(net_arch=[7, 6]))
    obs = observations(model, contexts=1)
    weights = model.policy.actor.weights(torch.as_tensor(CONTEXT.normalize(obs["context"][0])).float())
    hidden = torch.tanh(obs["observation"] @ weights["0.weight"].T + weights["0.bias"])
    hidden = torch.tanh(hidden @ weights["2.weight"].T + weights["2.bias"])
    distribution = model.policy.get_distribution(obs)
    torch.testing.assert_close(distribution._latent_sde, hidden.detach())
    mean = hidden @ weights["5.weight"].T + weights["5.bias"]
    torch.testing.assert_close(distribution.distribution.mean, mean)
    model.policy.reset_noise()
    torch.testing.assert_close(distribution.get_actions(), mean + hidden @ distribution.exploration_mat)


def test_trpo_refuses_what_it_would_leave_out() -> None:
    model = make("low_rank", toy(), TRPO, policy_kwargs=dict(squared_norm=1e-3), batch_size=16)
    with pytest.raises(ValueError, match="TRPO computes its own from the distribution: leave them 0"):
        model.learn(64)


def test_trpo_steps_into_the_trust_region() -> None:
    """Its step changes the actor alone, by about the divergence that it aims at."""
    model = make("full", toy(), TRPO, batch_size=64, learning_rate=0.0, target_kl=0.02)  # of the critic
    before = copy.deepcopy(model.policy.state_dict())
    model.learn(64)
    changed = {key for key, value in model.policy.state_dict().items() if not torch.equal(value, before[key])}
    names = {name for name, _ in model.policy.named_parameters()}
    assert changed == {name for name in names if not name.startswith("critic.")}
    assert 0.002 < model.logger.name_to_value["train/kl_divergence_loss"] < 0.02
