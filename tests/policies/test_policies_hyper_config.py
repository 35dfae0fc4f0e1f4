import io
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.testing import assert_array_equal
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor, nn
from toy import CONTEXT, VECTOR, observations, perturb, to_numpy, toy

from hyperrl.hypernet import CosSin, HyperNetwork, distinct, similarity, squared_norm
from hyperrl.policies import HyperDQNPolicy, HyperPolicy, HyperSACPolicy, HyperTD3Policy

ENCODERS: dict[str, dict[str, Any]] = {
    "mlp": dict(embedding=(9, 7)),
    "cos_sin": dict(encoder="cos_sin", embedding=(9, 7)),
    "none": dict(encoder="none"),
    "task_embedding": dict(encoder="task_embedding", embedding=(6,)),
    "layer_norm": dict(layer_norm=True),
    "norm_bound": dict(norm_bound=0.3),
}
TASKS = spaces.Dict(observation=VECTOR["observation"], context=spaces.Box(2, 5, (1,)))
BOX = spaces.Box(-1, 1, (2,))


def encoder_of(policy: Any) -> nn.Module:
    return policy.actor.encoder if isinstance(policy, HyperPolicy) else policy.actor.network.networks[0].encoder


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("policy", [HyperPolicy, HyperSACPolicy, HyperTD3Policy, HyperDQNPolicy])
def test_encoders_are_saved_and_loaded(policy: type[BasePolicy], encoder: str) -> None:
    """Each network has its own, and a policy made from a file has the same ones."""
    actions = spaces.Discrete(3) if policy is HyperDQNPolicy else BOX
    made = policy(TASKS, actions, lambda _: 1e-3, **ENCODERS[encoder])
    perturb(made)
    networks = [module for module in made.modules() if isinstance(module, HyperNetwork)]
    with_parameters = [network.encoder for network in networks if list(network.encoder.parameters())]
    assert len(networks) >= 2
    assert len({id(p) for e in with_parameters for p in e.parameters()}) == sum(
        len(list(e.parameters())) for e in with_parameters
    )
    file = io.BytesIO()
    made.save(file)
    file.seek(0)
    loaded = policy.load(file, device="cpu")
    obs = {"observation": np.random.default_rng(0).normal(size=(8, 5)), "context": np.float32([[2], [3], [4], [5]] * 2)}
    assert_array_equal(loaded.predict(obs, deterministic=True)[0], made.predict(obs, deterministic=True)[0])
    assert "encoder=" in repr(loaded.hyper_config)


def test_what_each_encoder_computes() -> None:
    def encode(context: Tensor, **options: Any) -> tuple[nn.Module, Tensor]:
        encoder = encoder_of(HyperPolicy(TASKS, BOX, lambda _: 1e-3, **options))
        return encoder, encoder(context)

    context = torch.tensor([[-1.0], [-1 / 3], [1 / 3], [1.0]])  # tasks 2 to 5, normalised
    assert_array_equal(encode(context, encoder="none")[1], context)
    encoder, z = encode(context, encoder="cos_sin", embedding=(9, 7))
    torch.testing.assert_close(z, encoder[1](CosSin()(context)))
    assert z.shape == (4, 7)
    encoder, z = encode(context, encoder="task_embedding", embedding=(6,))
    assert_array_equal(z.detach(), encoder[1].embedding.weight.detach())
    _, z = encode(context, layer_norm=True)
    torch.testing.assert_close(z.mean(dim=1), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.square().mean(dim=1), torch.ones(4), atol=1e-2, rtol=0)
    _, z = encode(10 * context, encoder="none", norm_bound=4.0)
    torch.testing.assert_close(z.flatten(), torch.tensor([-4.0, -10 / 3, 10 / 3, 4.0]))


def test_actor_and_critic_share_an_encoder_where_asked_to() -> None:
    policy = HyperPolicy(TASKS, BOX, lambda _: 1e-3, share_encoder=True)
    assert policy.actor.encoder is policy.critic.encoder


def test_the_rest_of_the_hypernetwork_can_be_reached() -> None:
    policy = HyperSACPolicy(TASKS, BOX, lambda _: 1e-3, net_arch=[8], generated="*.bias")
    networks = [module for module in policy.modules() if isinstance(module, HyperNetwork)]
    assert {name for network in networks for name in network.head.shapes} == {"0.bias", "2.bias"}
    policy = HyperPolicy(
        TASKS, BOX, lambda _: 1e-3, head="chunked", chunk_size=16, init="hyperfan_in", base=False, ortho_init=False
    )
    assert list(policy.actor.base_parameters()) == []
    obs = {"observation": torch.randn(64, 5), "context": torch.randint(2, 6, (64, 1))}
    means = policy.get_distribution(obs).distribution.mean  # pyright: ignore[reportAttributeAccessIssue]
    assert 0.1 < means.std() < 10


@pytest.mark.parametrize(("algorithm", "policy"), [(PPO, HyperPolicy), (SAC, HyperSACPolicy), (DQN, HyperDQNPolicy)])
@pytest.mark.parametrize("head", ["low_rank", "full", "adapter"])
def test_penalties_add_their_gradient_to_the_loss(algorithm: Any, policy: Any, head: str) -> None:
    """The same gradients as those of the loss with the terms written out."""
    env = toy("discrete" if algorithm is DQN else "box")
    options = dict(head=head, net_arch=[6, 5], squared_norm=0.3, similarity=0.7)
    model: Any = algorithm(policy, env, policy_kwargs=options, seed=0, device="cpu")
    perturb(model.policy)
    obs = observations(model)
    actions = torch.rand(12, 3, generator=torch.Generator().manual_seed(0))
    contexts, _ = distinct(torch.as_tensor(CONTEXT.normalize(obs["context"])).float())
    assert len(contexts) == 3

    def losses(policy: Any) -> dict[str, Tensor]:
        """What depends on the networks, and which networks these are."""
        if algorithm is PPO:
            values, log_prob, entropy = policy.evaluate_actions(obs, actions)
            return {"": (values.square() + log_prob + 0.1 * entropy).mean()}
        if algorithm is DQN:
            return {"q_net.": policy.q_net(obs).square().mean()}
        return {
            "actor.": policy.actor.get_action_dist_params(obs)[0].square().mean(),
            "critic.": sum(((q - 1) ** 2).mean() for q in policy.critic(obs, actions)),  # pyright: ignore[reportReturnType]
        }

    plain: Any = policy(
        model.observation_space, model.action_space, lambda _: 1e-3, **options | dict(squared_norm=0.0, similarity=0.0)
    )
    plain.load_state_dict(model.policy.state_dict())
    for (part, loss), written_out in zip(losses(model.policy).items(), losses(plain).values(), strict=True):
        for network in (m for key, m in plain.named_modules() if isinstance(m, HyperNetwork) and key.startswith(part)):
            if "target" not in part:
                theta = network.generate(contexts)
                written_out = written_out + 0.3 * squared_norm(theta) + 0.7 * similarity(theta)
        loss.backward()
        written_out.backward()
    gradients = {key: p.grad for key, p in model.policy.named_parameters() if p.grad is not None}
    expected = {key: p.grad for key, p in plain.named_parameters() if p.grad is not None}
    assert gradients.keys() == expected.keys()
    assert any("generator" in key for key in gradients)
    for key, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("algorithm", "policy"), [(PPO, HyperPolicy), (TD3, HyperTD3Policy)])
def test_squared_norm_keeps_weights_small(algorithm: Any, policy: Any) -> None:
    def norm(weight: float) -> float:
        sizes: Any = dict(n_steps=16, batch_size=16) if algorithm is PPO else dict(learning_starts=4, batch_size=16)
        kwargs = dict(net_arch=[8], squared_norm=weight)
        model = algorithm(policy, toy(), 1e-2, policy_kwargs=kwargs, seed=0, device="cpu", **sizes).learn(128)
        actor = next(module for module in model.policy.modules() if isinstance(module, HyperNetwork))
        return squared_norm(actor.generate(torch.zeros(1, 4))).item()

    assert norm(10.0) < 0.8 * norm(0.0)


def test_one_context_is_like_no_other() -> None:
    model = PPO(HyperPolicy, toy(), policy_kwargs=dict(similarity=1.0), device="cpu")
    obs: Any = observations(model, contexts=1)
    values, _, _ = model.policy.evaluate_actions(obs, torch.zeros(12, 3))
    values.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.policy.parameters() if p.grad is not None)
    assert model.predict(to_numpy(obs))[0].shape == (12, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(encoder="mpl"), r"unknown encoder 'mpl': the encoders are .* Did you mean 'mlp'"),
        (dict(squared_norm=-1.0), "expected squared_norm ≥ 0"),
        (dict(norm_bound=0.0), "expected norm_bound > 0"),
        (dict(rnk=3), "knows no 'rnk'.* Did you mean 'rank'"),
        (dict(embedding=()), r"expected widths ≥ 1, got embedding=\[\]"),
        (dict(init="bais"), "unknown init 'bais'"),
        (dict(generated="*.wieght"), "matches no parameter"),
        (dict(head="chunked", rank=3), "head 'chunked' has no option 'rank'"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HyperPolicy(TASKS, BOX, lambda _: 1e-3, **options)


def test_task_embedding_needs_tasks() -> None:
    with pytest.raises(ValueError, match="needs a context of one feature, a whole number between finite bounds"):
        HyperPolicy(spaces.Dict(VECTOR), BOX, lambda _: 1e-3, encoder="task_embedding")


def test_opposite_contexts_begin_with_opposite_embeddings() -> None:
    """Orthogonal and without biases, as SB3 begins hidden layers."""
    encoder = encoder_of(HyperPolicy(TASKS, BOX, lambda _: 1e-3, embedding=(32, 16)))
    c = 0.1 * torch.randn(50, encoder[0].in_features)
    torch.testing.assert_close(encoder(-c), -encoder(c))
    first, second = (layer.weight for layer in encoder if isinstance(layer, nn.Linear))  # pyright: ignore[reportGeneralTypeIssues]
    torch.testing.assert_close(first.mT @ first, 2 * torch.eye(1))
    torch.testing.assert_close(second @ second.mT, 2 * torch.eye(16))


def test_one_step_of_adam_moves_a_generated_log_std_as_far_as_a_learnt_one() -> None:
    rate = 0.01
    policy = HyperPolicy(TASKS, BOX, lambda _: rate)
    assert policy.log_std_generator is not None
    z = torch.sign(torch.randn(1, policy.log_std_generator.in_features))  # the largest that tanh allows
    before = policy.log_std_generator(z).detach()
    (-policy.log_std_generator(z).sum()).backward()
    policy.optimizer.step()
    moved = policy.log_std_generator(z).detach() - before
    torch.testing.assert_close(moved, torch.full_like(moved, 2 * rate), rtol=1e-3, atol=0.0)  # W's share and b's
