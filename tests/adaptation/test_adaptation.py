import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.testing import assert_allclose, assert_array_equal
from packaged import IN_TORCH, PHYSICS
from sb3_contrib import RecurrentPPO
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.vec_env import VecExtractDictObs, VecNormalize
from toy import perturb

import hyperrl
from hyperrl.adaptation import identification
from hyperrl.adaptation.environment import adaptation_stream
from hyperrl.adaptation.finetuning import pull_to_anchor
from hyperrl.adaptation.identification import Transitions, identify
from hyperrl.adaptation.methods import OF_MODELS, Adaptation, Curve, adapt
from hyperrl.adaptation.search import ContextSearch
from hyperrl.adaptation.studies import Line, Study, study
from hyperrl.contexts import ContextBox, ContextSpace, Feature, Vector
from hyperrl.evaluation.statistics import Estimate, estimate_iqm
from hyperrl.inference import Estimator, InferringAgent
from hyperrl.inference.agent import reader_of
from hyperrl.policies import ConcatPolicy, ContextExtractor, HyperDQNPolicy, HyperPolicy, HyperSACPolicy
from hyperrl.report import write_study
from hyperrl.rollouts.episodes import play
from hyperrl.utils.definitions import names
from hyperrl.utils.records import plain

SIZES: dict[str, Any] = dict(n_steps=50, batch_size=25, n_epochs=2, device="cpu", seed=0)
CARTPOLE = hyperrl.load_family("cartpole")
PENDULUM = hyperrl.load_family("pendulum")
CONTEXT = {"length": 0.7, "torque_gain": -1.5}
# What one step ahead does not tell: only these in combination, or not at all.
HIDDEN = {
    "cartpole": {"masscart", "masspole", "force_mag"},
    "pendulum": {"gravity", "mass", "length"},
    "mountain_car_continuous": {"goal_position"},
}


def agent(policy: Any = HyperPolicy, family: Any = PENDULUM, **kwargs: Any) -> Any:
    model = PPO(policy, family.vec_env(2), **SIZES | kwargs)
    torch.manual_seed(0)
    perturb(model.policy)
    return model


def seen(family: hyperrl.Family, context: Vector, seed: int = 0) -> Transitions:
    """One episode of random actions."""
    env: Any = family.make(context=context)
    observation, _ = env.reset(seed=seed)
    env.action_space.seed(seed)
    steps, over = [], False
    while not over:
        action = env.action_space.sample()
        after, reward, terminated, truncated, _ = env.step(action)
        steps.append((observation["observation"], action, reward, after["observation"]))
        observation, over = after, terminated or truncated
    return Transitions(*(np.array(part) for part in zip(*steps, strict=True)))


@pytest.mark.parametrize("name", IN_TORCH)
def test_one_episode_identifies_the_context(name: str) -> None:
    family = hyperrl.load_family(name)
    hidden = np.array([feature in HIDDEN.get(name, ()) for feature in family.context_space.names])
    for i, context in enumerate(family.context_space.sample("extrapolation", 2, 0)):
        found = identify(family, seen(family, context, i), seed=i)
        assert_allclose(found.context[~hidden], context[~hidden], rtol=0.01, atol=1e-6)
        assert_array_equal(found.identified, ~hidden)
        low, high = found.interval
        assert ((low <= context) & (context <= high))[hidden].all()
        # Other values than the true ones, where they are hidden, do the same.
        again = predicted(family, seen(family, context, 9), found.context)
        assert_allclose(again, predicted(family, seen(family, context, 9), context), rtol=1e-3, atol=1e-5)


def test_mujoco_has_no_gradients_to_identify_by() -> None:
    family = hyperrl.load_family("inverted_pendulum")
    with pytest.raises(ValueError, match=r"MujocoPhysics has no gradients.*learn_dynamics\(family\)"):
        identify(family, seen(family, family.context_space.default, 0))
    policy = PPO(hyperrl.HyperPolicy, family.vec_env(2), n_steps=4, batch_size=8, device="cpu")
    with pytest.raises(ValueError, match="MujocoPhysics has no gradients"):
        hyperrl.adapt(policy, family.make({}), "identify", episodes=1, evaluations=1)


def predicted(family: hyperrl.Family, transitions: Transitions, context: Vector) -> Vector:
    physics = family.physics()
    state = physics.state_of(torch.from_numpy(transitions.observation).double())
    c = {name: torch.full((len(state),), value) for name, value in family.context_space.as_dict(context).items()}
    action = torch.from_numpy(transitions.action)
    after, _, _ = physics.step(state, action.double() if action.is_floating_point() else action, c)
    return physics.observe(after).numpy()


def test_a_state_is_found_from_its_observation() -> None:
    for physics in PHYSICS.values():
        low, high = (
            torch.from_numpy(np.clip(x, -2, 2)).double()
            for x in (physics.observation_space.low, physics.observation_space.high)
        )
        state = physics.state_of(low + (high - low) * torch.rand(50, len(low)))
        assert_allclose(physics.state_of(physics.observe(state)), state, atol=1e-12)


def test_intervals_cover_the_truth_as_often_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identification, "STARTS", 4)  # it takes a quarter of the time, and here as many suffice
    family = hyperrl.load_family("ode")
    rng = np.random.default_rng(0)
    truth, inside = np.array([-6.0, 4.0]), []
    exact = Transitions(*(part[:40] for part in seen(family, truth)))
    for _ in range(100):
        noisy = exact.following + rng.normal(0, 0.02, exact.following.shape)
        found = identify(family, exact._replace(following=noisy))
        low, high = found.interval
        inside.append((low <= truth) & (truth <= high))
        assert np.abs(high - low).min() > 0.1  # not by being sure of everything, nor of nothing
        assert found.identified.all()
    assert_allclose(np.mean(inside, axis=0), 0.95, atol=0.05)


def test_nothing_seen_leaves_the_prior() -> None:
    family = hyperrl.load_family("mountain_car")
    exact = seen(family, family.context_space.vector({"force": -0.0015}))
    found = identify(family, Transitions(*(part[exact.action == 1] for part in exact)))
    assert_array_equal(found.identified, [True, False])  # the engine was never on
    assert found.context[1] == family.context_space.default[1]
    low, high = found.interval
    assert low[1] < -0.0015 < high[1]  # the sign is open too
    with pytest.raises(ValueError, match="expected transitions"):
        identify(family, Transitions(*(part[:0] for part in exact)))


def test_irrelevant_features_stay_at_their_default() -> None:
    family = hyperrl.load_family("ode").with_irrelevant(2)
    found = identify(family, seen(family, np.array([2.0, -3.0, 0.5, 0.5])))
    assert_allclose(found.context, [2, -3, 0, 0], rtol=1e-4)
    assert_array_equal(found.identified, [True, True, False, False])


SPACES = {
    "one feature": ContextSpace((Feature("a", "1", 0.0, ((-1, 1),), ((-3, 3),)),)),
    "a gap": ContextSpace(
        (
            Feature("a", "1", 0.0, ((-1, 1),), ((-3, 3),)),
            Feature("b", "1", 2.0, ((-2, -1), (1, 2)), ((-4, -1), (1, 4))),
        )
    ),
    "a choice": ContextSpace(
        (Feature("a", "1", 0.0, ((-1, 1),), ((-3, 3),)), Feature("b", "1", 1.0, ((-1, -1), (1, 1)), ((-1, -1), (1, 1))))
    ),
}


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_search_finds_a_known_optimum(space: ContextSpace) -> None:
    wanted = np.array([2.0, -1.0])[: len(space)]
    distances = []
    for seed in range(5):
        search = ContextSearch(space, seed)
        state = np.random.get_state()[1].tolist()  # noqa: NPY002
        assert_array_equal(search.ask(), space.default)
        for _ in range(40):
            c = space.matrix(search.ask()[None])[0]  # in bounds
            search.tell(-float(np.square(c - wanted).sum()))
        assert np.random.get_state()[1].tolist() == state  # noqa: NPY002
        distances.append(np.abs(search.best - wanted).max())
    assert np.median(distances) < 0.4 < np.abs(space.default - wanted).max()


def test_search_asks_again_for_what_beats_the_best() -> None:
    search = ContextSearch(SPACES["a gap"])
    search.ask()
    search.tell(0.0)
    lucky = search.ask()
    search.tell(5.0)
    assert_array_equal(search.ask(), lucky)
    search.tell(-7.0)  # -1 on average
    assert_array_equal(search.best, SPACES["a gap"].default)
    assert not np.array_equal(search.ask(), lucky)


def test_uniform_coordinates_of_a_context() -> None:
    for name in names("envs"):
        space = hyperrl.load_family(name).context_space
        for context in space.sample("extrapolation", 20, 0):
            assert_allclose(space.from_uniform(space.to_uniform(context)[None], bounds=True)[0], context)


class Guess(gym.Env[Any, Any]):
    """Episodes of one step, in which the action should be the context."""

    def __init__(self, context: float, shown: float | None) -> None:
        entries = {"observation": spaces.Box(-1, 1, (1,)), "context": ContextBox(SPACES["one feature"])}
        self.observation_space = spaces.Dict(entries)
        self.action_space = spaces.Box(-5, 5, (1,))
        self.context = context
        self.shown = context if shown is None else shown

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return {"observation": np.zeros(1, np.float32), "context": np.float32([self.shown])}, {}

    def step(self, action: Any) -> Any:
        return self.reset()[0], -abs(float(action[0]) - self.context), True, False, {}


def repeating(env: gym.Env[Any, Any]) -> Any:
    """An agent that answers with the context that it is reported."""
    model = PPO(ConcatPolicy, env, policy_kwargs=dict(net_arch=[]), **SIZES)
    with torch.no_grad():
        model.policy.action_net.weight[:] = torch.tensor([[0.0, 1.0]])
    return model


def test_search_improves_an_agent_without_looking_at_the_context() -> None:
    results = [adapt(repeating(env), env, "search", 20, seed=1) for env in (Guess(2, None), Guess(2, -3))]
    assert_array_equal(results[0].returns, results[1].returns)
    assert results[0].returns[0] == pytest.approx(-2)
    assert results[0].returns[-1].mean() > -0.5
    assert results[0].episode_returns[0] == pytest.approx(-2)  # the first episode is played in the default context
    reported = adapt(repeating(Guess(2, None)), Guess(2, None), "zero-shot", 1)
    assert_allclose(reported.returns, 0, atol=1e-6)
    perturbed = adapt(repeating(Guess(2, None)), Guess(2, None), "zero-shot", 1, context=[1.0])
    assert_allclose(perturbed.returns, -1, atol=1e-6)


class Liar(gym.ObservationWrapper[Any, Any, Any]):
    def observation(self, observation: Any) -> Any:
        return observation | {"context": np.float32([9, 9])}


def numbers(result: Adaptation) -> dict[str, Any]:
    return plain(result.curve)


@pytest.mark.parametrize("method", OF_MODELS)
def test_the_same_seed_gives_the_same_numbers_and_an_unknown_context_is_never_read(method: str) -> None:
    family, context = hyperrl.load_family("ode"), {"c0": -4, "c1": 2}
    model = agent(family=family)
    before = copy.deepcopy(model.policy.state_dict())
    run = lambda env, seed: numbers(adapt(model, env, method, 1, evaluations=1, seed=seed))  # noqa: E731
    first = run(family.make(context=context), 0)
    assert first["after"] == [0, 1]
    assert first["steps"] == [0, 200]
    assert len(first["episode_returns"]) == 1
    assert run(family.make(context=context), 0) == first
    assert run(family.make(context=context), 1)["episode_returns"] != first["episode_returns"]
    unread = run(Liar(family.make(context=context)), 0) == first
    assert unread == (method in ("search", "identify", "scratch"))
    for name, tensor in model.policy.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("family", [CARTPOLE, PENDULUM], ids=lambda family: family.name)
@pytest.mark.parametrize("policy", [HyperPolicy, ConcatPolicy])
def test_finetuning_begins_where_zero_shot_is(family: hyperrl.Family, policy: Any) -> None:
    model = agent(policy, family)
    context = family.context_space.sample("extrapolation", 1, 3)
    envs = lambda n: family.vec_env(n, contexts=context)  # noqa: E731
    zero, tuned = (adapt(model, envs(1), m, 1, eval_env=envs(5), evaluations=5) for m in ("zero-shot", "finetune"))
    assert_allclose(tuned.returns[0], zero.returns[0], rtol=0 if family is CARTPOLE else 1e-3)
    assert_array_equal(zero.returns[0], zero.returns[1])
    assert family is CARTPOLE or not np.array_equal(tuned.returns[1], tuned.returns[0])


def test_measurements_equal_those_of_evaluate() -> None:
    model, context = agent(), PENDULUM.context_space.vector(CONTEXT)
    expected = play(model, PENDULUM, context[None], 5, seed=4).returns[0]
    for n in (3, 9):
        eval_env = PENDULUM.vec_env(n, contexts=context[None])
        env = PENDULUM.vec_env(1, contexts=context[None])
        result = adapt(model, env, "zero-shot", 1, eval_env=eval_env, evaluations=5, seed=4)
        assert_allclose(result.returns[0], expected, rtol=1e-4)


@pytest.mark.parametrize("method", ["zero-shot", "search", "identify"])
def test_a_recurrent_agent_keeps_its_memory_within_an_episode(method: str) -> None:
    """With normalised observations, a memory that matters, and measurements in fewer environments than episodes."""
    normalizer = VecNormalize(PENDULUM.vec_env(4), norm_obs_keys=["observation"])
    kwargs = dict(features_extractor_class=ContextExtractor)
    model = RecurrentPPO("MultiInputLstmPolicy", normalizer, policy_kwargs=kwargs, **SIZES)
    torch.manual_seed(0)
    perturb(model.policy)
    context = PENDULUM.context_space.default
    calls: list[Any] = []
    predict = model.predict

    def spy(observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False) -> Any:
        actions, after = predict(observation, state, episode_start, deterministic)
        calls.append((state, episode_start, after))
        return actions, after

    model.predict = spy
    eval_env = PENDULUM.vec_env(3, contexts=context[None])
    env = PENDULUM.vec_env(1, contexts=context[None])
    result = adapt(model, env, method, 1, eval_env=eval_env, evaluations=5, seed=4)
    assert len(calls) == 200 * 5  # two measurements of two rounds each, and an episode
    for i, (state, start, _) in enumerate(calls):
        assert start is not None
        assert start.all() == (i % 200 == 0)
        if i % 200:
            assert_array_equal(state, calls[i - 1][2])
    expected = play(model, PENDULUM, context[None], 5, seed=4).returns[0]
    assert_allclose(result.returns[0], expected, rtol=1e-3)  # the first measurement is in the default context


@pytest.mark.parametrize("method", ["finetune", "scratch"])
def test_a_recurrent_agent_learns_no_further(method: str) -> None:
    kwargs = dict(features_extractor_class=ContextExtractor)
    model = RecurrentPPO("MultiInputLstmPolicy", PENDULUM.vec_env(2), policy_kwargs=kwargs, **SIZES)
    with pytest.raises(ValueError, match="are for agents without memory: no plain agent acts as a RecurrentPPO does"):
        adapt(model, PENDULUM.make(context=CONTEXT), method, 1)


def test_scratch_is_stable_baselines3() -> None:
    context = PENDULUM.context_space.vector(CONTEXT)[None]
    result = adapt(agent(), PENDULUM.vec_env(1, contexts=context), "scratch", 2, evaluations=1, seed=3)
    env = VecExtractDictObs(PENDULUM.vec_env(1, contexts=context), "observation")
    stock = PPO("MlpPolicy", env, **SIZES | dict(seed=3))
    env.seed(adaptation_stream(3))
    stock.learn(400)
    assert type(result.model.policy) is type(stock.policy)
    for name, tensor in stock.policy.state_dict().items():
        assert torch.equal(tensor, result.model.policy.state_dict()[name])


def test_an_infinite_pull_leaves_the_weights_and_a_finite_one_is_the_proximal_step() -> None:
    env = PENDULUM.make(context=CONTEXT)
    plain = hyperrl.specialize(agent(), CONTEXT).policy.state_dict()
    moved = {}
    for weight in (0.0, 1e4, np.inf):
        result = adapt(agent(), env, "finetune", 1, evaluations=1, proximal=weight)
        state = result.model.policy.state_dict()
        moved[weight] = sum(float((state[name] - tensor).norm()) for name, tensor in plain.items())
    assert moved[0.0] > 2 * moved[1e4] > 0
    assert moved[np.inf] == 0

    model = PPO("MlpPolicy", "Pendulum-v1", learning_rate=0.1, device="cpu")
    model.policy.optimizer = torch.optim.SGD(model.policy.parameters(), lr=0.1)
    weight = model.policy.action_net.bias
    anchor = weight.detach().clone()  # pyright: ignore[reportCallIssue]
    pull_to_anchor(model, 2.0)
    weight.grad = torch.ones_like(weight)
    model.policy.optimizer.step()
    # argmin of x + (x - anchor)² + (x - anchor)²/0.2, of which x - 0.1 is the step without the pull
    assert_allclose((weight - anchor).detach(), -0.1 / 1.2, rtol=1e-5)


@pytest.mark.parametrize(
    ("algorithm", "policy", "family"), [(SAC, HyperSACPolicy, PENDULUM), (DQN, HyperDQNPolicy, CARTPOLE)]
)
def test_off_policy_agents_go_on_without_random_actions(algorithm: Any, policy: Any, family: hyperrl.Family) -> None:
    model = algorithm(policy, family.vec_env(2), learning_starts=5000, batch_size=32, device="cpu", seed=0)
    env = family.make(context=family.context_space.default)
    tuned = adapt(model, env, "finetune", 1, evaluations=2)
    assert tuned.model.learning_starts == 0  # pyright: ignore[reportAttributeAccessIssue]
    assert tuned.model.num_timesteps == tuned.steps[-1] + 1
    plain = hyperrl.specialize(model, family.context_space.default).policy.state_dict()
    assert any(not torch.equal(plain[name], tensor) for name, tensor in tuned.model.policy.state_dict().items())
    fresh = adapt(model, env, "scratch", 1, evaluations=2)
    assert fresh.model.learning_starts == 5000  # pyright: ignore[reportAttributeAccessIssue]
    assert_array_equal(fresh.returns[0], fresh.returns[1])


def test_statistics_of_vec_normalize_come_along() -> None:
    env = VecNormalize(PENDULUM.vec_env(2), norm_obs_keys=["observation"])
    model = PPO(HyperPolicy, env, **SIZES).learn(400)
    vec_env = PENDULUM.vec_env(1, contexts=PENDULUM.context_space.vector(CONTEXT)[None])
    zero = adapt(model, vec_env, "zero-shot", 1, evaluations=2)
    tuned = adapt(model, vec_env, "finetune", 1, evaluations=2)
    assert_allclose(tuned.returns[0], zero.returns[0], rtol=1e-3)
    new = tuned.model.get_vec_normalize_env()
    assert_array_equal(new.obs_rms.mean, env.obs_rms["observation"].mean)  # pyright: ignore[reportAttributeAccessIssue]
    assert new.ret_rms.var == env.ret_rms.var
    assert tuned.episode_returns[0] < -100  # in the environment's units


def test_environments_need_not_observe_a_context() -> None:
    model, plain = agent(), gym.make("Pendulum-v1")
    result = adapt(model, plain, "zero-shot", 1, context={}, evaluations=2)
    same = adapt(model, PENDULUM.make(context={}), "zero-shot", 1, evaluations=2)
    assert_allclose(result.returns, same.returns, rtol=1e-4)
    assert adapt(model, plain, "search", 1, evaluations=1).reported.shape == (2, 4)
    with pytest.raises(ValueError, match="does not observe its context"):
        adapt(model, plain, "finetune", 1)
    with pytest.raises(ValueError, match="needs an environment of a family with 'physics'"):
        adapt(model, plain, "identify", 1)


def test_summaries() -> None:
    returns = np.array([[0.0, 2.0], [4.0, 6.0], [3.0, 3.0]])
    after, steps = np.array([0, 1, 2]), np.array([0, 10, 25])
    result = Adaptation("scratch", after, steps, returns, None, np.array([1.0, 4.0]), None, model=agent())
    assert result.reached(5.0) == (1, 10)
    assert result.reached(0.0) == (0, 0)
    assert result.reached(5.1) is None
    assert_array_equal(result.regret(5.0), [4, 5])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(method="zeroshot"), "Did you mean 'zero-shot'"),
        (dict(episodes=0), "at least one episode"),
        (dict(evaluations=0), "at least one episode"),
        (dict(seed=-1), "expected a seed ≥ 0"),
        (dict(method="search", context=CONTEXT), "takes none"),
        (dict(context={"lenght": 1}), "Did you mean 'length'"),
        (dict(proximal=1.0), "learns no weights"),
        (dict(hyperparameters=dict(n_steps=1)), "learns no weights"),
        (dict(method="finetune", hyperparameters=dict(n_step=1)), "Did you mean 'n_steps'"),
        (dict(method="finetune", proximal=-1.0), "0 or more"),
        (dict(env=PENDULUM.vec_env(2)), "expected one env, got 2"),
        (dict(env=CARTPOLE.make(context={})), "expected an environment that observes"),
        (dict(model=PPO("MlpPolicy", "Pendulum-v1", device="cpu")), "reads its context from a Dict"),
    ],
)
def test_mistakes_are_refused(kwargs: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = dict(model=agent(), env=PENDULUM.make(context=CONTEXT), episodes=1) | kwargs
    with pytest.raises(ValueError, match=message):
        adapt(**arguments)


def test_a_study_gives_every_method_the_same_episodes_and_is_never_overwritten(tmp_path: Any) -> None:
    family = hyperrl.load_family("ode")
    contexts = family.context_space.sample("extrapolation", 2, 0)
    agents = {"hyper": [agent(family=family), agent(family=family)], "concat": [agent(ConcatPolicy, family)]}
    result = study(agents, family, contexts, ("zero-shot", "scratch"), episodes=1, seeds=2, evaluations=3)
    assert [line.label for line in result.lines] == ["hyper, zero-shot", "concat, zero-shot", "hyper, scratch"]
    hyper = result.lines[0]
    assert hyper.returns.shape == (2, 2, 2, 2, 3)  # two trainings, two seeds, two contexts, 0 and 1 episodes
    expected = play(agents["hyper"][0], family, contexts, 3, seed=0).returns
    assert_allclose(hyper.returns[0, 0, 0, 0], expected[0], rtol=0.05)  # of the first context: rewards are steps
    assert result.targets is not None  # the family knows its optimum
    assert result.best is not None
    assert (result.targets < result.best).all()
    low, high = np.full(2, -1.0), np.full(2, 201.0)
    assert hyper.reached(low) == ((0, 0, 0), (0, 0, 0))
    assert hyper.reached(high) == ((np.inf,) * 3, (np.inf,) * 3)
    write_study(result, tmp_path / "out")
    again = Study.load(tmp_path / "out" / "adaptation.json")
    assert plain(again) == plain(result)
    assert_array_equal(again.lines[0].returns, hyper.returns)
    assert again.models["concat"][0].policy == "ConcatPolicy"
    assert again.curves == result.curves
    assert (tmp_path / "out" / "adaptation.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="is never overwritten"):
        write_study(result, tmp_path / "out")
    with pytest.raises(ValueError, match="Did you mean 'scratch'"):
        study(agents, family, contexts, ("scrach",))


@pytest.mark.parametrize("is_scored", [False, True])
def test_the_curve_of_a_study_takes_trainings_for_independent_and_their_adaptations_not(is_scored: bool) -> None:
    random, best = np.array([-10.0, -200.0]), np.array([10.0, 200.0])
    returns = np.random.default_rng(0).uniform(-100, 100, (3, 2, 2, 1, 5))  # trainings, seeds, contexts, k, evaluations

    after = np.array([0])

    def curve(returns: np.ndarray) -> Estimate:
        steps = np.array([0])
        results = tuple(
            tuple(tuple(Curve("identify", after, steps, r, None, np.zeros(1), None) for r in row) for row in rows)
            for rows in returns
        )
        references = dict(random=random, best=best) if is_scored else dict(random=None, best=None)
        study = Study("x", np.zeros((2, 1)), after, (Line("a", "identify", results),), **references)
        return study.curves["a, identify"][0]

    scale, shift = ((best - random)[:, None], random[:, None]) if is_scored else (1.0, 0.0)
    values = (returns[:, :, :, 0] - shift) / scale  # (trainings, seeds, contexts, evaluations)
    assert_allclose(curve(returns), estimate_iqm(np.concatenate([values[:, 0], values[:, 1]], axis=-1)))
    assert_allclose(curve(returns[:1]), estimate_iqm(values[0]))


def test_an_agent_that_infers_its_context_needs_no_episode_and_is_not_told() -> None:
    family, context = hyperrl.load_family("ode"), {"c0": -4, "c1": 2}
    model = agent(family=family)
    reader = reader_of(model)
    inferring = InferringAgent(model, Estimator(reader.other_space, model.action_space, family.context_space))
    torch.nn.init.normal_(list(inferring.estimator.parameters())[-2])  # it believes something else at every step
    envs = lambda: family.vec_env(3, contexts=[family.context_space.vector(context)])  # noqa: E731
    result = adapt(inferring, family.make(context=context), "infer", 1, eval_env=envs(), evaluations=3)
    assert result.after.tolist() == [0, 1]
    assert (result.returns == result.returns[0]).all()  # nothing is kept from episode to episode
    liar = Liar(family.make(context=context))
    assert numbers(adapt(inferring, liar, "infer", 1, eval_env=envs(), evaluations=3)) == numbers(result)
    assert result.first_returns is not None
    assert result.first_returns.shape == (200,)
    assert result.first_returns[-1] == pytest.approx(result.returns[0].mean())
    assert (np.diff(result.first_returns) >= 0).all()  # rewards of this family are positive
    told = adapt(inferring, family.make(context=context), "zero-shot", 1, eval_env=envs(), evaluations=3)
    same = adapt(model, family.make(context=context), "zero-shot", 1, eval_env=envs(), evaluations=3)
    assert numbers(told) == numbers(same)
    with pytest.raises(ValueError, match="infer_context"):
        adapt(model, family.make(context=context), "infer", 1)
    line = study({"a": [inferring]}, family, [[-4, 2], [1, 1]], ("infer", "zero-shot"), 1, 1, 2).lines[0]
    assert line.first_episode is not None
    steps, curve = line.first_episode
    assert curve.shape == (3, len(steps))
    assert curve[0, -1] == pytest.approx(line.returns[:, :, :, 0].mean())
