"""What the page shows: weights, drawings, curves."""

import base64
import io
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from PIL import Image
from sb3_contrib import RecurrentPPO
from stable_baselines3 import DQN, PPO, SAC

import hyperrl
from hyperrl.alignment import AlignedContext
from hyperrl.explorer import view
from hyperrl.explorer.session import Session
from hyperrl.explorer.weights import Layer, WeightMap
from hyperrl.families import context_env
from hyperrl.hypernet import HEADS
from hyperrl.policies import HyperDQNPolicy, HyperSACPolicy, RecurrentPolicy
from hyperrl.rollouts import RandomActions
from hyperrl.simulation import VecLastStep

FAMILY = hyperrl.load_family("pendulum")
SPACE = FAMILY.context_space


def shaken(model: Any) -> Any:
    """Make the weights depend on the context, as training does."""
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("head", HEADS)
def test_differences_are_those_of_the_generated_weights(head: str) -> None:
    torch.manual_seed(0)
    model = shaken(PPO(hyperrl.HyperPolicy, FAMILY.vec_env(2), policy_kwargs=dict(head=head), device="cpu"))
    weights = WeightMap(model, SPACE)
    assert all((layer.difference == 0).all() for layer in weights.layers(SPACE.default))
    context = SPACE.sample("train", 1, 3)[0]
    layers = weights.layers(context)
    actor = model.policy.actor
    normalized = torch.tensor(SPACE.normalize([SPACE.default, context]), dtype=torch.float32)
    default, other = actor.generate(normalized).detach()
    assert_allclose(
        np.sort(np.concatenate([layer.difference.ravel() for layer in layers])),
        np.sort((other - default).numpy()),
        atol=1e-5,
    )
    if head != "adapter":
        named = actor.weights(normalized[1]), actor.weights(normalized[0])
        assert_allclose(layers[0].difference[:, -1], (named[0]["0.bias"] - named[1]["0.bias"]).detach(), atol=1e-5)
        assert [layer.shape for layer in layers] == ["3 → 64", "64 → 64", "64 → 1"]


@pytest.mark.parametrize(
    ("algorithm", "policy", "name"), [(SAC, HyperSACPolicy, "pendulum"), (DQN, HyperDQNPolicy, "cartpole")]
)
def test_off_policy_agents_have_a_map_too(algorithm: Any, policy: Any, name: str) -> None:
    family = hyperrl.load_family(name)
    weights = WeightMap.of(
        shaken(algorithm(policy, family.vec_env(1), buffer_size=10, device="cpu")), family.context_space
    )
    assert isinstance(weights, WeightMap)
    assert all(np.abs(layer.difference).max() > 0 for layer in weights.layers(family.context_space.high))


def test_agents_without_generated_weights_say_why() -> None:
    vec_env = FAMILY.vec_env(2)
    concat, unaware = (
        WeightMap.of(PPO(policy, vec_env, device="cpu"), SPACE)
        for policy in (hyperrl.ConcatPolicy, hyperrl.UnawarePolicy)
    )
    assert concat == "One network for all contexts; the context is one of its inputs."
    assert unaware == "One network for all contexts, which it is not told."
    recurrent = RecurrentPPO(RecurrentPolicy, vec_env, n_steps=8, batch_size=8, device="cpu")
    assert WeightMap.of(recurrent, SPACE) == "One network for all contexts, which acts on what it remembers."
    aligned = PPO(hyperrl.ConcatPolicy, AlignedContext(vec_env), device="cpu")
    assert WeightMap.of(aligned, SPACE) == "One network for all contexts; what it remembers is one of its inputs."
    assert isinstance(WeightMap.of(RandomActions(vec_env.action_space, 1, 0), SPACE), str)


def recurrent(steps: int) -> Any:
    vec_env = VecLastStep(FAMILY.vec_env(2))
    return RecurrentPPO(hyperrl.HyperRecurrentPolicy, vec_env, n_steps=steps, batch_size=8, device="cpu")


def aligned(steps: int) -> Any:
    return PPO(hyperrl.HyperPolicy, AlignedContext(FAMILY.vec_env(2)), n_steps=steps, batch_size=8, device="cpu")


@pytest.mark.parametrize("make", [recurrent, aligned])
def test_an_agent_with_a_memory_shows_the_weights_that_it_acts_by(make: Any) -> None:
    torch.manual_seed(0)
    model = shaken(make(8))
    session = Session(FAMILY, {"it": model})
    lane = session.lanes[0]
    weights = WeightMap.of(model, SPACE)
    assert isinstance(weights, WeightMap)
    assert weights.begins_with == "an episode's beginning"
    beginning = weights.read(lane)
    assert all((layer.difference == 0).all() for layer in weights.layers(beginning))
    scales = [0.0, 0.0, 0.0]
    for _ in range(5):
        observed = lane.observation["observation"]
        session.step()
        layers = weights.layers(weights.read(lane))
        x = observed
        for i, (layer, first) in enumerate(zip(layers, weights._first, strict=True)):
            w = first[0] + layer.difference  # (out, in + 1)
            x = w[:, :-1] @ x + w[:, -1]
            x = np.tanh(x) if i < 2 else x
        assert_allclose(lane.agent._actions[0], np.clip(x, -2, 2), atol=1e-4)
        assert all(layer.scale >= scale for layer, scale in zip(layers, scales, strict=True))
        scales = [layer.scale for layer in layers]
    assert min(scales) > 0
    session.restart()
    assert_allclose(weights.read(lane), beginning)


def pixels(url: str) -> np.ndarray:
    kind, _, data = url.partition(",")
    assert kind.startswith("data:image/")
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_heat_maps_are_red_above_and_blue_below() -> None:
    layer = Layer("layer 1", "2 → 2", np.array([[0.0, 1.0, -1.0], [9.0, -0.5, 0.0]], dtype=np.float32), scale=1.0)
    shown = pixels(view.heat_map(layer))
    assert shown.shape == (2, 3, 3)
    redness = shown[..., 0] - shown[..., 2]
    assert (np.sign(redness) == [[0, 1, -1], [1, -1, 0]]).all()
    assert (shown[0, 0] == 255).all()
    assert (shown[1, 0] == shown[0, 1]).all()  # beyond the scale
    wide = layer._replace(difference=layer.difference.T)
    assert pixels(view.heat_map(wide)).shape == (2, 3, 3)  # lies flat


def session_of(name: str) -> Session:
    family = hyperrl.load_family(name)
    return Session(family, {"random <b>": RandomActions(family.make().action_space, 1, 0)})


def test_shapes_are_drawn_as_svg_and_pixels_as_jpeg() -> None:
    session = session_of("pendulum")
    before = view.drawing(session.lanes[0])["svg"]
    session.set_feature("length", 1.3)
    assert view.drawing(session.lanes[0])["svg"] != before  # without a step
    assert pixels(view.drawing(session_of("cartpole").lanes[0])["image"]).shape == (400, 600, 3)


def test_what_cannot_be_drawn_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def broken() -> Any:
        nonlocal asked
        asked += 1
        raise RuntimeError("no display")

    session = session_of("cartpole")
    monkeypatch.setattr(context_env, "_UNDRAWABLE", {})
    monkeypatch.setattr(session.lanes[0].context_env.env, "render", broken)
    for _ in range(2):
        error = view.drawing(session.lanes[0])["error"]
        assert "CartPoleEnv cannot be drawn here: no display. MuJoCo" in error
    assert asked == 1  # MuJoCo ends the process if it is asked twice


def test_curves_end_at_the_returns() -> None:
    session = session_of("pendulum")
    assert "<polyline" in view.curves(session)
    for _ in range(200):
        session.step()
    svg = view.curves(session)
    returns = session.lanes[0].returns
    assert f">{view.number(min(returns))}<" in svg
    assert "200 steps" in svg
    assert svg.count(",") < 2 * view.CURVE_POINTS


def test_the_ground_of_a_slider_shows_range_gap_and_default() -> None:
    gain = SPACE.features[SPACE.index("torque_gain")]
    ground = view.track(gain)
    assert (ground.count('"train"'), ground.count('"gap"'), ground.count('"default"')) == (2, 1, 1)
    assert (view.percent(gain, -3), view.percent(gain, 3)) == (0, 100)
