from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.testing import assert_allclose, assert_array_equal
from stable_baselines3 import PPO

import hyperrl
from hyperrl.adaptation import dynamics as module
from hyperrl.adaptation.dynamics import Dynamics, learn_dynamics
from hyperrl.adaptation.identification import Transitions, by_physics, identify
from hyperrl.utils.definitions import folder

ODE = hyperrl.load_family("ode")


@pytest.fixture(scope="module")
def learnt() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "HELD_OUT", 4)
        return learn_dynamics(ODE, transitions=20_000, steps=1500)


def seen(context: np.ndarray, n: int = 100) -> Transitions:
    rng = np.random.default_rng(0)
    x, action = rng.uniform(-2, 2, (n, 1)).astype(np.float32), rng.uniform(-1, 1, (n, 2)).astype(np.float32)
    columns = {name: torch.full((n,), value) for name, value in zip(ODE.context_space.names, context, strict=True)}
    following, reward, _ = ODE.physics().step(torch.tensor(x).double(), torch.tensor(action).double(), columns)
    return Transitions(x, action, reward.numpy(), following.float().numpy())


def test_it_foretells_what_the_physics_does(learnt: Dynamics) -> None:
    """In contexts, states and actions that it was not trained on, to a tenth of what they change."""
    contexts = torch.tensor(ODE.context_space.sample("extrapolation", 200, 1))
    x, action = 4 * torch.rand(200, 1, dtype=torch.float64) - 2, 2 * torch.rand(200, 2, dtype=torch.float64) - 1
    predicted, _ = learnt(x, action, contexts)
    true, _ = by_physics(ODE.physics(), ODE.context_space)(x, action, contexts)
    assert (predicted - true).square().mean().sqrt() < 0.1 * (true - x[:, 0]).square().mean().sqrt()


@pytest.mark.parametrize("context", [(3.0, -4.0), (-8.0, 2.0), (1.0, 9.0)])
def test_a_context_is_found_as_by_the_physics(learnt: Dynamics, context: tuple[float, float]) -> None:
    transitions = seen(np.array(context))
    found = learnt.identify(transitions, ODE.context_space)
    exact = identify(ODE, transitions)
    assert_allclose(exact.context, context, atol=1e-3)
    assert_allclose(found.context, context, atol=1.0)
    assert (np.abs(found.context - context) < 4 * found.std).all()
    assert found.identified.all()
    assert found.interval[0].min() < min(context)


def test_uncertainty_is_widened_by_what_it_was_short_of_in_contexts_held_out(learnt: Dynamics) -> None:
    transitions = seen(np.array([2.0, 5.0]))
    wide = learnt.identify(transitions, ODE.context_space)
    assert (learnt.inflation >= 1).all()
    assert_allclose(wide.std, identify(learnt, transitions, ODE.context_space).std * learnt.inflation)
    before, learnt.inflation = learnt.inflation, np.array([1e6, 1.0])
    lost = learnt.identify(transitions, ODE.context_space)
    learnt.inflation = before
    assert lost.std[0] == 10  # half of the bounds' width: the prior
    assert_array_equal(lost.identified, [False, True])


def test_a_family_without_physics_is_identified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_OUT", 2)
    text = (folder("envs") / "mountain_car.toml").read_text(encoding="utf-8")
    path = tmp_path / "car.toml"
    path.write_text("\n".join(line for line in text.splitlines() if not line.startswith("physics")))
    family = hyperrl.load_family(path)
    model = PPO(hyperrl.HyperPolicy, family.vec_env(2), n_steps=8, batch_size=8, device="cpu", seed=0)
    env = family.make(context={"force": -0.0012})
    with pytest.raises(ValueError, match="learn_dynamics"):
        hyperrl.adapt(model, env, "identify", episodes=1)
    made = learn_dynamics(family, model, transitions=12_800, steps=300)
    curve = hyperrl.adapt(model, env, "identify", episodes=1, evaluations=1, dynamics=made)
    assert curve.identified is not None
    assert curve.reported is not None
    force = family.context_space.names.index("force")
    assert abs(curve.reported[1, force] + 0.0012) < abs(curve.reported[0, force] + 0.0012)
    with pytest.raises(ValueError, match="identifies no context"):
        hyperrl.adapt(model, env, "search", episodes=1, dynamics=made)


def test_the_same_seed_learns_the_same_and_features_that_do_nothing_stay_at_their_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "HELD_OUT", 2)
    family = ODE.with_irrelevant(2)
    model = PPO(hyperrl.HyperPolicy, family.vec_env(2), n_steps=8, batch_size=8, device="cpu", seed=0)
    made, again = (learn_dynamics(family, model, transitions=6400, steps=20, device="cpu") for _ in range(2))
    for one, other in zip(made.state_dict().values(), again.state_dict().values(), strict=True):
        assert_array_equal(one, other)
    found = made.identify(seen(np.array([3.0, -4.0])), family.context_space)
    assert_array_equal(found.context[2:], family.context_space.default[2:])
    assert_array_equal(found.identified[2:], False)


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (spaces.Box(0, 255, (8, 8, 3)), spaces.Discrete(2), "a vector"),
        (spaces.Discrete(3), spaces.Discrete(2), "a vector"),
        (spaces.Box(-1, 1, (2,)), spaces.MultiBinary(3), "a Box or a Discrete"),
    ],
)
def test_other_spaces_are_refused(observation: Any, action: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Dynamics(observation, action, ODE.context_space)


def test_too_few_transitions_are_refused() -> None:
    with pytest.raises(ValueError, match="expected more transitions"):
        learn_dynamics(ODE, transitions=640, steps=1)
