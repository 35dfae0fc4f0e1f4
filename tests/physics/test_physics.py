"""The dynamics: equal to Gymnasium's environments with attributes set, or to the formulas written out by hand."""

import math
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from packaged import FAMILIES, IN_TORCH

import hyperrl
from hyperrl import physics
from hyperrl.simulation.simulator import Simulator

WITH_BOTH = [name for name in IN_TORCH if FAMILIES[name].has_base]
WITHOUT_BASE = [name for name in IN_TORCH if not FAMILIES[name].has_base]
ENVS: dict[str, Any] = {name: FAMILIES[name].make() for name in WITH_BOTH}
unit = st.floats(0, 1, exclude_max=True)
seeds = st.integers(0, 2**32 - 1)


def context_of(family, numbers):
    """Map numbers in [0, 1) to a context anywhere in bounds."""
    values = []
    for feature, u in zip(family.context_space.features, numbers, strict=False):
        low, high = feature.bounds[int(u * len(feature.bounds))]
        values.append(low + (u * len(feature.bounds)) % 1 * (high - low))
    return family.context_space.vector(values)


def tensors(family, context, n=1):
    """The context of n rows."""
    values = family.context_space.as_dict(context)
    return {name: torch.full((n,), value, dtype=torch.float64) for name, value in values.items()}


def draw_action(space, rng):
    """Draw an action, a continuous one in float64 and now and then out of the action space."""
    if isinstance(space, spaces.Box):
        return rng.uniform(1.2 * space.low, 1.2 * space.high)
    return int(rng.integers(space.n))


def row(action):
    return torch.as_tensor(np.asarray(action))[None]


def tolerance(name):
    """How near states must be: Gymnasium keeps the continuous car's in single precision, 2e-7 for a position of 1."""
    return 3e-7 if name == "mountain_car_continuous" else 1e-9


def episode(name, numbers, seed, synchronise):
    """Play an episode in both, with the same actions, and yield what each gave."""
    family, env = FAMILIES[name], ENVS[name]
    context, rng = context_of(family, numbers), np.random.default_rng(seed)
    dynamics, c = family.physics(), tensors(family, context)
    env.reset(seed=0, options={"context": context})
    state = dynamics.initial(torch.from_numpy(rng.random((1, dynamics.uniforms))), c)
    inner, done = env.unwrapped.env, False
    inner.state = state[0].numpy()
    truncated = False
    while not done:
        action = draw_action(env.action_space, rng)
        observation, reward, terminated, truncated, _ = env.step(action)
        done = terminated or truncated
        state, reward_, terminated_ = dynamics.step(state, row(action), c)
        ours = (state[0].numpy(), dynamics.observe(state)[0].numpy(), reward_.item(), terminated_.item())
        yield (inner.state, observation["observation"], reward, terminated), ours
        if synchronise:
            inner.state = state[0].numpy()
    assert truncated == (env.get_wrapper_attr("_elapsed_steps") == env.spec.max_episode_steps)


@pytest.mark.parametrize("name", WITH_BOTH)
@settings(max_examples=8, deadline=None)
@given(numbers=st.lists(unit, min_size=8, max_size=8), seed=seeds)
def test_a_whole_episode_equals_gymnasiums_with_attributes_set(name, numbers, seed):
    # Both start each step in the same state: the acrobot is chaotic, so that sines which differ in their last bit
    # would grow into different episodes. Actions are float64: Gymnasium computes with a float32 action in float32.
    for theirs, ours in episode(name, numbers, seed, synchronise=True):
        np.testing.assert_allclose(ours[0], np.asarray(theirs[0]), rtol=0, atol=tolerance(name))
        np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-6, atol=1e-6)
        assert ours[2] == pytest.approx(theirs[2], rel=1e-9, abs=1e-9)
        assert ours[3] == theirs[3]


@pytest.mark.parametrize("name", [name for name in WITH_BOTH if name != "acrobot"])
def test_a_free_running_episode_stays_with_gymnasiums(name):
    for seed in range(3):
        for theirs, ours in episode(name, np.full(8, 0.7), seed, synchronise=False):
            np.testing.assert_allclose(ours[0], np.asarray(theirs[0]), rtol=0, atol=100 * tolerance(name))
            assert ours[3] == theirs[3]


STATES = {  # half widths of the box that states are drawn from; other families' come from a few random steps
    "acrobot": [math.pi, math.pi, 4 * math.pi, 9 * math.pi],
    "cartpole": [2.4, 3.0, 0.21, 3.0],
    "pendulum": [10.0, 8.0],
    "mountain_car": [0.6, 0.07],
    "mountain_car_continuous": [0.6, 0.07],
    "double_integrator": [1.0, 1.0, 1.0, 1.0],
    "double_integrator_friction": [1.0, 1.0, 1.0, 1.0],
    "double_integrator_permuted": [1.0, 1.0, 1.0, 1.0],
    "ode": [5.0],
}


def draw_states(name, n, rng):
    """Draw states of shape (n, s), for mountain cars some of them at the left wall or at full speed."""
    if name not in STATES:
        family = FAMILIES[name]
        dynamics, c = family.physics(), tensors(family, family.context_space.default, n)
        state = dynamics.initial(torch.from_numpy(rng.random((n, dynamics.uniforms))), c)
        for _ in range(5):
            actions = np.stack([draw_action(dynamics.action_space, rng) for _ in range(n)])
            state, _, _ = dynamics.step(state, torch.from_numpy(actions), c)
        return state.numpy()
    states = rng.uniform(-1, 1, (n, len(STATES[name]))) * STATES[name]
    if name.startswith("mountain_car"):
        states = np.where(rng.random((n, 2)) < 0.1, [-1.2, 0.07], states * [1.5, 1.0] - [0.3, 0.0])
    return states


@pytest.mark.parametrize("name", WITH_BOTH)
@settings(max_examples=20, deadline=None)
@given(numbers=st.lists(unit, min_size=8, max_size=8), seed=seeds)
def test_a_step_from_anywhere_equals_gymnasiums(name, numbers, seed):
    # Terminations, walls and limits of speed are rare in random episodes, and met here.
    family, env = FAMILIES[name], ENVS[name]
    dynamics, context, rng = family.physics(), context_of(family, numbers), np.random.default_rng(seed)
    inner = env.unwrapped.env
    for state in draw_states(name, 5, rng):
        env.reset(seed=0, options={"context": context})
        inner.state = state
        action = draw_action(env.action_space, rng)
        _, reward, terminated, _, _ = env.step(action)
        after, reward_, terminated_ = dynamics.step(row(state), row(action), tensors(family, context))
        np.testing.assert_allclose(after[0].numpy(), np.asarray(inner.state), rtol=0, atol=tolerance(name))
        assert reward_.item() == pytest.approx(reward, rel=1e-9, abs=1e-9)
        assert terminated_.item() == terminated


@pytest.mark.parametrize("name", WITH_BOTH)
def test_single_precision_actions_change_no_more_than_their_rounding(name):
    # Under NumPy 2 a float32 action keeps what Gymnasium computes from it in float32, of relative precision 6e-8.
    family, env, rng = FAMILIES[name], ENVS[name], np.random.default_rng(0)
    dynamics, inner = family.physics(), env.unwrapped.env
    env.action_space.seed(0)
    for state in draw_states(name, 100, rng):
        env.reset(seed=0, options={"context": family.context_space.default})
        inner.state = state
        action = env.action_space.sample()
        _, reward, _, _, _ = env.step(action)
        after, reward_, _ = dynamics.step(
            row(state),
            row(np.asarray(action, dtype=np.float64 if isinstance(env.action_space, spaces.Box) else np.int64)),
            tensors(family, family.context_space.default),
        )
        np.testing.assert_allclose(after[0].numpy(), np.asarray(inner.state), rtol=1e-6, atol=1e-6)
        assert reward_.item() == pytest.approx(reward, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", WITH_BOTH)
def test_initial_states_and_spaces_are_gymnasiums(name):
    dynamics, env = FAMILIES[name].physics(), ENVS[name]
    assert dynamics.observation_space == env.observation_space["observation"]
    assert dynamics.action_space == env.action_space
    inner = env.unwrapped.env
    inner.reset(seed=0)
    theirs = []
    for _ in range(1000):
        inner.reset()
        theirs.append(np.asarray(inner.state))
    uniform = np.random.default_rng(0).random((1000, dynamics.uniforms))
    ours = dynamics.initial(torch.from_numpy(uniform), {}).numpy()
    spread = np.ptp(ours, axis=0)
    for statistic in (np.mean, np.std, np.min, np.max):
        difference = abs(statistic(ours, axis=0) - statistic(np.stack(theirs), axis=0))
        assert (difference <= 0.05 * spread).all()


def clip(value, limit=1.0):
    return min(max(value, -limit), limit)


def double_integrator_by_hand(state, action, c):
    x, y, vx, vy = state
    x, y = clip(x + 0.1 * vx), clip(y + 0.1 * vy)
    damping = 1 - 0.1 * c.get("friction", 0.0) / c["mass"]
    pushes = action[::-1] if c.get("permutation") == 1 else action
    forces = (clip(c.get("action_factor", 1.0) * u) for u in pushes)
    vx, vy = (clip(v * damping + 0.1 * force / c["mass"]) for v, force in zip((vx, vy), forces, strict=True))
    return [x, y, vx, vy], 1.0 if math.hypot(x, y) <= 0.1 else 0.0


def ode_by_hand(state, action, c):
    a = complex(clip(action[0]), clip(action[1]))
    rate = sum(coefficient * a ** (i + 1) for i, coefficient in enumerate(c.values())).real
    x = clip(state[0] + 0.01 * rate, 20)
    rewards = ((0.05, 1), (0.1, 1 / 2), (0.2, 1 / 3), (0.5, 1 / 4), (2, 0.05))
    return [x], next((reward for below, reward in rewards if abs(x) < below), 0)


def quadrotor_by_hand(state, action, c):
    x, y, theta, vx, vy, omega = state
    left, right = (6 * (clip(u) + 1) for u in action)
    ax = (c["wind"] - (left + right) * math.sin(theta)) / c["mass"]
    ay = (left + right) * math.cos(theta) / c["mass"] - 9.81
    turn = c["rotors"] * c["arm_length"] * (right - left) / (0.02 + c["mass"] * c["arm_length"] ** 2)
    vx, vy, omega = clip(vx + 0.04 * ax, 5), clip(vy + 0.04 * ay, 5), clip(omega + 0.04 * turn, 10)
    x, y = clip(x + 0.04 * vx, 3), clip(y + 0.04 * vy, 3)
    return [x, y, theta + 0.04 * omega, vx, vy, omega], math.exp(-x * x - y * y)


def two_link_arm_by_hand(state, action, c):
    """From the kinetic energy of the two masses, by their Jacobians, rather than from the closed form."""
    q1, q2, *w, gx, gy = state
    payload, forearm = c["payload"], c["forearm"]

    def jacobians(q1, q2):
        elbow = np.array([[-0.5 * math.sin(q1), 0], [0.5 * math.cos(q1), 0]])
        sin, cos = forearm * math.sin(q1 + q2), forearm * math.cos(q1 + q2)
        return elbow, elbow + np.array([[-sin, -sin], [cos, cos]])

    def inertia(q1, q2):
        elbow, hand = jacobians(q1, q2)
        return elbow.T @ elbow + payload * hand.T @ hand + 0.1 * np.eye(2)

    def energy(q1, q2):
        return 0.5 * np.array(w) @ inertia(q1, q2) @ np.array(w)

    h = 1e-5  # Lagrange: d/dt (M w) - dT/dq = torque, with dM/dt and dT/dq as differences
    change = (inertia(q1 + h * w[0], q2 + h * w[1]) - inertia(q1 - h * w[0], q2 - h * w[1])) / (2 * h)
    slope = [energy(q1 + h, q2) - energy(q1 - h, q2), energy(q1, q2 + h) - energy(q1, q2 - h)]
    torque = [limit * c["torque_gain"] * clip(u) for limit, u in zip((4, 2), action, strict=True)]
    free = np.array(torque) - c["damping"] * np.array(w) - change @ np.array(w) + np.array(slope) / (2 * h)
    w = [clip(v + 0.05 * a, 10) for v, a in zip(w, np.linalg.solve(inertia(q1, q2), free), strict=True)]
    q1, q2 = q1 + 0.05 * w[0], q2 + 0.05 * w[1]
    hand = 0.5 * np.exp(1j * q1) + forearm * np.exp(1j * (q1 + q2))
    return [q1, q2, *w, gx, gy], math.exp(-3 * abs(hand - complex(gx, gy)))


def boat_by_hand(state, action, c):
    x, y, heading, speed = state
    speed = clip(speed + 0.1 * (2.5 * clip(action[0]) - c["drag"] * speed), 10)
    heading += 0.1 * c["rudder_gain"] * clip(action[1]) * (0.5 + abs(speed))
    x = clip(x + 0.1 * (speed * math.cos(heading) + c["current_x"]), 4)
    y = clip(y + 0.1 * (speed * math.sin(heading) + c["current_y"]), 4)
    return [x, y, heading, speed], math.exp(-math.hypot(x, y))


def thermostat_by_hand(state, action, c):
    above, heat = state
    flow = c["loss"] * (c["outside"] - (20 + above)) + 40 * c["valve"] * heat
    above = clip(above + 0.1 * flow / c["capacity"], 50)
    return [above, clip(heat + 0.1 * (clip(action[0]) - heat) / c["lag"])], math.exp(-abs(above) / 2)


def lane_keeping_by_hand(state, action, c):
    y, heading, wheels = state
    wheels = 0.5 * wheels + 0.5 * 0.6 * c["steering"] * clip(action[0])
    heading += 0.1 * c["speed"] / c["wheelbase"] * math.tan(wheels + c["misalignment"])
    y = clip(y + 0.1 * (c["speed"] * math.sin(heading) + c["slip"]), 3)
    return [y, heading, wheels], math.exp(-2 * abs(y)) * (0.5 + 0.5 * math.cos(heading))


def predator_prey_by_hand(state, action, c):
    prey, predators = map(math.exp, state)
    rates = (
        c["growth"] * (1 - prey / 4) - c["predation"] * predators,
        c["conversion"] * prey - c["mortality"] + 2 * clip(action[0]),
    )
    after = [clip(number + 0.05 * rate, 4) for number, rate in zip(state, rates, strict=True)]
    return after, math.exp(-3 * abs(after[0]))


def tanks_by_hand(state, action, c):
    first, second = state
    between, outflow = c["outlet_1"] * math.sqrt(first), c["outlet_2"] * math.sqrt(second)
    first = min(max(first + 0.2 * (0.5 * c["pump"] * (1 + clip(action[0])) - between), 0), 5)
    second = min(max(second + 0.2 * (between - outflow), 0), 5)
    return [first, second], math.exp(-4 * abs(second - c["level"]))


def epidemic_by_hand(state, action, c):
    susceptible, infected = state
    u = 0.5 + 0.5 * clip(action[0])
    new = min(susceptible, c["contact_rate"] * (1 - c["compliance"] * u) * susceptible * infected)
    infected += new - c["recovery_rate"] * infected
    return [susceptible - new, infected], 1 - 20 * infected - c["cost"] * u * u


BY_HAND = {
    "boat": boat_by_hand,
    "double_integrator": double_integrator_by_hand,
    "double_integrator_friction": double_integrator_by_hand,
    "double_integrator_permuted": double_integrator_by_hand,
    "epidemic": epidemic_by_hand,
    "lane_keeping": lane_keeping_by_hand,
    "ode": ode_by_hand,
    "predator_prey": predator_prey_by_hand,
    "quadrotor": quadrotor_by_hand,
    "tanks": tanks_by_hand,
    "thermostat": thermostat_by_hand,
    "two_link_arm": two_link_arm_by_hand,
}


def test_every_family_without_an_original_is_written_out_by_hand():
    assert set(BY_HAND) == set(WITHOUT_BASE)


@pytest.mark.parametrize("name", BY_HAND)
@settings(max_examples=50, deadline=None)
@given(numbers=st.lists(unit, min_size=8, max_size=8), seed=seeds, near=st.booleans())
def test_steps_equal_the_formulas(name, numbers, seed, near):
    family, rng = FAMILIES[name], np.random.default_rng(seed)
    dynamics, context = family.physics(), context_of(family, numbers)
    state = draw_states(name, 1, rng)[0] * (0.1 if near else 1.0)  # the reward is near the origin
    for _ in range(10):
        action = draw_action(dynamics.action_space, rng)
        after, reward, terminated = dynamics.step(row(state), row(action), tensors(family, context))
        expected, expected_reward = BY_HAND[name](state.tolist(), action, family.context_space.as_dict(context))
        within = 1e-8 if name == "two_link_arm" else 1e-12  # by hand it takes differences
        np.testing.assert_allclose(after[0].numpy(), expected, rtol=within, atol=within)
        assert reward.item() == pytest.approx(expected_reward)
        assert not terminated.item()
        state = after[0].numpy()


@pytest.mark.parametrize("n", [1, 2, 7, 20])
def test_the_ode_has_as_many_coefficients_as_there_are_features(n):
    rng = np.random.default_rng(n)
    c = {f"c{i}": float(rng.uniform(-5, 5)) for i in range(n)}
    action = rng.uniform(-0.9, 0.9, 2)
    rows = {name: torch.tensor([value], dtype=torch.float64) for name, value in c.items()}
    state, _, _ = physics.load("ode").step(torch.tensor([[0.3]], dtype=torch.float64), row(action), rows)
    assert state.item() == pytest.approx(ode_by_hand([0.3], action, c)[0][0], abs=1e-12)


def test_double_integrators_start_in_every_corner():
    uniform = torch.rand(1000, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    position, velocity = physics.load("double_integrator").initial(uniform, {}).split(2, dim=1)
    assert not velocity.any()
    assert ((position.abs() >= 0.8) & (position.abs() <= 1)).all()
    assert {tuple(corner) for corner in position.sign().tolist()} == {(-1, -1), (-1, 1), (1, -1), (1, 1)}


@pytest.mark.parametrize("name", IN_TORCH)
def test_every_feature_changes_the_dynamics(name):
    family, rng, n = FAMILIES[name], np.random.default_rng(0), 500
    dynamics, space = family.physics(), family.context_space
    state = torch.from_numpy(draw_states(name, n, rng))
    action = torch.from_numpy(np.stack([draw_action(dynamics.action_space, rng) for _ in range(n)]))
    reference = dynamics.step(state, action, tensors(family, space.default, n))
    for i, feature in enumerate(space.features):
        context = space.default
        context[i] = next(end for end in (feature.bounds[0][0], feature.bounds[-1][1]) if end != context[i])
        changed = dynamics.step(state, action, tensors(family, context, n))
        differences = [(a.double() - b.double()).abs().max() for a, b in zip(reference, changed, strict=True)]
        assert max(differences) > 1e-5, feature.name


@pytest.mark.parametrize("name", IN_TORCH)
def test_rows_are_independent_and_arguments_stay_as_they_are(name):
    family, rng = FAMILIES[name], np.random.default_rng(1)
    dynamics, space = family.physics(), family.context_space
    c = {key: torch.from_numpy(column) for key, column in zip(space.names, space.sample("train", 5).T, strict=True)}
    state = dynamics.initial(torch.from_numpy(rng.random((5, dynamics.uniforms))), c)
    action = torch.from_numpy(np.stack([draw_action(dynamics.action_space, rng) for _ in range(5)]))
    arguments = [state, action, *c.values()]
    before = [argument.clone() for argument in arguments]
    together = dynamics.step(state, action, c)
    for i in range(5):
        alone = dynamics.step(state[i : i + 1], action[i : i + 1], {key: value[i : i + 1] for key, value in c.items()})
        for one, every in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], every[i], rtol=1e-12, atol=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(before, arguments, strict=True))
    assert together[0].data_ptr() != state.data_ptr()


@pytest.mark.parametrize("name", IN_TORCH)
def test_single_precision_stays_single_precision(name):
    family = FAMILIES[name]
    dynamics = family.physics()
    c = {key: value.float() for key, value in tensors(family, family.context_space.default, 3).items()}
    state = dynamics.initial(torch.rand(3, dynamics.uniforms), c)
    action = torch.from_numpy(np.stack([dynamics.action_space.sample() for _ in range(3)]))
    state, reward, terminated = dynamics.step(state, action, c)
    assert (state.dtype, reward.dtype, terminated.dtype) == (torch.float32, torch.float32, torch.bool)


@pytest.mark.parametrize("name", IN_TORCH)
def test_nothing_is_made_on_another_device(name):
    family = FAMILIES[name]
    dynamics = family.physics()
    c = {key: value.to("meta") for key, value in tensors(family, family.context_space.default, 3).items()}
    state = dynamics.initial(torch.rand(3, dynamics.uniforms, dtype=torch.float64, device="meta"), c)
    actions = np.stack([dynamics.action_space.sample() for _ in range(3)])
    results = dynamics.step(state, torch.from_numpy(actions).to("meta"), c)
    assert {tensor.device.type for tensor in (*results, dynamics.observe(results[0]))} == {"meta"}


def test_unknown_physics_gets_the_nearest_name():
    with pytest.raises(ValueError, match=r"unknown physics 'pendlum'.*Did you mean 'pendulum'"):
        physics.load("pendlum")


DEFINITION = """
id = "hyperrl/Mine-v0"
plane = ["mass", "mass"]
{}
[features.mass]
unit = "kg"
default = 1.0
train = [0.5, 1.5]
bounds = [0.1, 2.0]
"""


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "'base'.*or 'physics'"),
        ('physics = "double_integrator"', "'max_episode_steps' is missing"),
        ('physics = "double_integrator"\nmax_episode_steps = 0', "at least 1"),
        ('physics = "double_integrator"\nmax_episode_steps = 9\naction_scale = "mass"', "'action_scale' is about"),
        ('physics = "double_integrater"\nmax_episode_steps = 9', "Did you mean 'double_integrator'"),
        ('physics = "pendulum"\nmax_episode_steps = 9', "needs the features.*'torque_gain'"),
    ],
)
def test_faulty_definitions_are_refused(tmp_path, lines, message):
    path = tmp_path / "mine.toml"
    path.write_text(DEFINITION.format(lines), encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        hyperrl.load_family(path).vec_env(2)
    assert str(path) in str(caught.value)


def test_the_example_of_the_guide_runs(tmp_path):
    guide = (Path(__file__).parents[2] / "docs" / "new-family.md").read_text(encoding="utf-8")
    (tank,) = (block for block in re.findall(r"```toml\n(.*?)```", guide, re.DOTALL) if "tank:Tank" in block)
    code, by_hand = (block for block in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if "tank" in block)
    path = tmp_path / "mine.toml"
    path.write_text(tank, encoding="utf-8")
    space = hyperrl.load_family(path).context_space
    made: dict[str, Any] = {"clip": clip, "math": math}
    exec(code, made)
    exec(by_hand, made)
    simulator = Simulator(made["Tank"](), space, 3, 200)
    simulator.seed([0, 1, 2])
    simulator.reset()
    assert simulator.state is not None
    level = simulator.state.numpy().copy()  # not the observation, which is rounded to float32
    action = torch.tensor([[0.3], [2.0], [-1.0]], dtype=torch.float64)
    step = simulator.step(action)
    for i in range(3):
        state, reward = made["tank_by_hand"](level[i], action[i].numpy(), space.as_dict(simulator.contexts[i]))
        np.testing.assert_allclose(step.observation["observation"][i], state, rtol=1e-6)
        assert step.reward[i] == pytest.approx(reward, rel=1e-6)


@pytest.mark.parametrize("name", WITHOUT_BASE)
def test_environments_without_an_original_pass_the_checkers(name):
    from gymnasium.utils.env_checker import check_env
    from stable_baselines3.common.env_checker import check_env as check_env_sb3

    family = FAMILIES[name]
    env = gym.make(family.id)
    check_env(env.unwrapped, skip_render_check=True)
    check_env_sb3(env)
    feature = family.context_space.features[0]
    end = feature.bounds[-1][1]
    observation, _ = env.reset(options={"context": {feature.name: end}})
    assert observation["context"][0] == np.float32(end)
    ends = [env.step(env.action_space.sample())[2:4] for _ in range(env.spec.max_episode_steps)]
    assert ends == [(False, False)] * (len(ends) - 1) + [(False, True)]


@pytest.mark.parametrize("name", WITHOUT_BASE)
def test_one_environment_equals_a_row_of_the_physics(name):
    family = FAMILIES[name]
    dynamics, context = family.physics(), family.context_space.sample("train", 1, seed=3)[0]
    env = family.make(context)
    env.reset(seed=0)
    inner = env.unwrapped.env  # pyright: ignore[reportAttributeAccessIssue]
    state, c = inner._state.clone(), tensors(family, context)
    env.action_space.seed(0)
    for _ in range(10):
        action = env.action_space.sample()
        observation, reward, *_ = env.step(action)
        state, expected, _ = dynamics.step(state, row(action).double(), c)
        np.testing.assert_array_equal(observation["observation"], dynamics.observe(state)[0].numpy().astype(np.float32))
        assert reward == expected.item()
