"""Explanations of agents of which the answer is known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sb3_contrib import RecurrentPPO
from stable_baselines3 import DQN, PPO, SAC

import hyperrl
from hyperrl.analysis import Explanation, explain
from hyperrl.hypernet import HEADS
from hyperrl.policies import FilmPolicy, HyperDQNPolicy, HyperSACPolicy
from hyperrl.report import write_explanation
from tests.toy import perturb

FAMILY = hyperrl.load_family("double_integrator").with_irrelevant(1)  # mass, action_factor (1 or -1), irrelevant_0
QUICK: Any = dict(contexts=6, states=40, episodes=0)


def turned_round() -> PPO:
    """An agent whose only layer is that of one context, times the sign of the action's factor."""
    kwargs = dict(head="full", encoder="none", net_arch=[])
    model: Any = PPO(hyperrl.HyperPolicy, FAMILY.vec_env(2), policy_kwargs=kwargs, device="cpu", seed=0)
    head = model.policy.actor.head
    with torch.no_grad():
        for parameter in head.base.parameters():
            parameter.zero_()
        head.generator.weight.zero_()
        weight = head.generator.weight[:, FAMILY.context_space.index("action_factor")]
        weight[:8] = torch.randn(8, generator=torch.Generator().manual_seed(0))  # not the bias
    return model


def test_what_does_nothing_moves_nothing_and_a_sign_turns_the_actions_round() -> None:
    explanation = explain(turned_round(), FAMILY, contexts=12, states=100, episodes=1)
    effects = explanation.actions
    for name in ("mass", "irrelevant_0"):
        effect = effects[name]
        assert (effect.mean, effect.largest, effect.reversed, effect.jumps) == (0, 0, 0, ())
        assert not effect.distance.any()
        assert np.ptp(explanation.told[name].returns) == 0
    sign = effects["action_factor"]
    assert sign.mean == sign.largest > 0.1
    assert sign.reversed > 0.9
    assert [(jump.low, jump.high) for jump in sign.jumps] == [(-1, 1)]
    assert explanation.told["action_factor"].offsets.tolist() == [0, 1]
    assert sorted((group.low[1], group.high[1]) for group in explanation.groups) == [(-1, -1), (1, 1)]
    assert explanation.weights is not None
    actor = explanation.weights.layers[0]
    assert_allclose(actor.sensitivity, [0, 1, 0], atol=1e-6)  # all of the weights turn round
    assert actor.rank == pytest.approx(1)
    assert explanation.weights.rank == pytest.approx(1)
    assert explanation.weights.map.explained[0] == pytest.approx(1)


def agent(
    head: str, algorithm: Any = PPO, policy: Any = hyperrl.HyperPolicy, family: Any = FAMILY, **kwargs: Any
) -> Any:
    """An agent whose weights depend on the context, but not on what is irrelevant."""
    model = algorithm(
        policy, family.vec_env(2), policy_kwargs=dict(head=head, net_arch=[8], **kwargs), device="cpu", seed=1
    )
    perturb(model.policy)
    with torch.no_grad():
        for network in model.policy.generated_networks().values():
            next(network.encoder.parameters())[:, -1] = 0
    return model


@pytest.mark.parametrize("head", HEADS)
def test_every_head_is_explained_and_its_jacobian_is_that_of_finite_differences(head: str) -> None:
    model = agent(head)
    explanation = explain(model, FAMILY, **QUICK)
    assert explanation.actions["irrelevant_0"].largest == 0
    assert explanation.actions["mass"].mean > 0
    assert explanation.weights is not None
    assert explanation.weights.head == head
    assert all(layer.sensitivity[-1] == 0 for layer in explanation.weights.layers)
    assert (len(explanation.weights.directions) > 0) == (head == "low_rank")
    actor, reader = model.policy.actor.double(), model.policy.reader.double()
    contexts = (torch.as_tensor(explanation.contexts) - reader.center) / reader.half_width
    step = torch.tensor([1e-4, 0, 0])
    with torch.no_grad():
        change = (actor.generate(contexts + step) - actor.generate(contexts - step)) / 2e-4
        weights = actor.generate(contexts)
    first, count = explanation.weights.layers[0], explanation.weights.layers[0].weights
    expected = change[:, :count].norm(dim=1).mean() / weights[:, :count].norm(dim=1).mean()
    assert first.sensitivity[0] == pytest.approx(expected.item(), rel=1e-3)


def test_a_direction_that_is_held_is_let_go_again() -> None:
    model = agent("low_rank")
    before = model.policy.actor(torch.ones(3, 3), torch.ones(3, 4))
    explanation = explain(model, FAMILY, **QUICK)
    assert torch.equal(model.policy.actor(torch.ones(3, 3), torch.ones(3, 4)), before)
    assert explanation.weights is not None
    assert max(direction.effect for direction in explanation.weights.directions) > 0
    assert all(abs(direction.correlation[-1]) < 1 for direction in explanation.weights.directions)


def test_off_policy_agents_and_choices_are_explained() -> None:
    family = hyperrl.load_family("cartpole")
    model = DQN(
        HyperDQNPolicy, family.vec_env(2), policy_kwargs=dict(net_arch=[8]), buffer_size=100, device="cpu", seed=0
    )
    perturb(model.policy)
    found = explain(model, family, **QUICK)
    assert found.weights is not None
    assert {effect.reversed for effect in found.actions.values()} == {0.0}
    explanation = explain(agent("low_rank", SAC, HyperSACPolicy), FAMILY, **QUICK)
    assert explanation.weights is not None
    assert {layer.network for layer in explanation.weights.layers} == {"actor", "critic", "critic_2"}


@pytest.mark.parametrize("policy", [hyperrl.UnawarePolicy, hyperrl.ConcatPolicy, FilmPolicy])
def test_agents_without_generated_weights_say_so(policy: Any) -> None:
    model = PPO(policy, FAMILY.vec_env(2), device="cpu", seed=0)
    if policy is FilmPolicy:
        for name, parameter in model.policy.named_parameters():
            if "modulation" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    explanation = explain(model, FAMILY, **QUICK)
    assert explanation.weights is None
    assert explanation.without_weights == f"{policy.__name__} has the same weights in all contexts: none are generated"
    assert (explanation.actions["mass"].mean > 0) == (policy is not hyperrl.UnawarePolicy)


def test_what_cannot_be_explained_is_refused() -> None:
    model = RecurrentPPO("MultiInputLstmPolicy", FAMILY.vec_env(2), device="cpu")
    with pytest.raises(ValueError, match="expected an agent that is told its context, got RecurrentPPO"):
        explain(model, FAMILY)
    with pytest.raises(ValueError, match=r"expected contexts ≥ 2, .* got contexts=1"):
        explain(turned_round(), FAMILY, contexts=1)


def test_an_explanation_is_kept_and_drawn(tmp_path: Path) -> None:
    explanation = explain(agent("low_rank"), FAMILY, **(QUICK | dict(episodes=1)))
    write_explanation(explanation, FAMILY.context_space, "mine", tmp_path / "out")
    files = {path.name for path in (tmp_path / "out").iterdir()}
    pictures = {"actions", "responses", "policies", "told", "weights", "map", "directions"}
    assert files == {"report.md", "explanation.json", *(f"{name}.png" for name in pictures)}
    again = Explanation.load(tmp_path / "out" / "explanation.json")
    assert_allclose(again.distances, explanation.distances)
    assert again.actions["mass"].mean == explanation.actions["mass"].mean
    assert again.weights is not None
    assert_allclose(again.weights.map.points, explanation.weights.map.points)
    text = (tmp_path / "out" / "report.md").read_text()
    assert "# mine on double_integrator" in text
    assert all(f"]({name}.png)" in text for name in pictures)
    with pytest.raises(ValueError, match="exists already and is never overwritten"):
        write_explanation(explanation, FAMILY.context_space, "mine", tmp_path / "out")
