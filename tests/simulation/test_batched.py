"""Batched environments: Stable-Baselines3's and Gymnasium's contracts, for every family that has physics."""

import copy
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from packaged import FAMILIES, IN_TORCH, PHYSICS
from stable_baselines3 import A2C, PPO, SAC
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

import hyperrl
from hyperrl.simulation.arrays import to_tensor
from hyperrl.simulation.simulator import Simulator
from hyperrl.simulation.vec_env import BatchedVecEnv
from hyperrl.utils.definitions import folder
from hyperrl.utils.seeding import stream

CONTINUOUS = [name for name, physics in PHYSICS.items() if isinstance(physics.action_space, spaces.Box)]
N = 6

every_family = pytest.mark.parametrize("name", PHYSICS)


def make(name, n_envs=N, **kwargs) -> Any:
    vec_env = FAMILIES[name].vec_env(n_envs, backend="batched", **kwargs)
    assert isinstance(vec_env, BatchedVecEnv)
    return vec_env


def short(name, n_envs=N, steps=7, contexts=None, device="cpu") -> Any:
    """Environments whose time limit is met often."""
    family = FAMILIES[name]
    return BatchedVecEnv(Simulator(family.physics(), family.context_space, n_envs, steps, contexts, device))


def draw_actions(vec_env, steps, seed=0):
    """Actions of shape (steps, n, ...), those of an environment the same whatever n."""
    space, rng = vec_env.action_space, np.random.default_rng(seed)
    if isinstance(space, spaces.Box):
        uniform = rng.random((64, steps, *space.shape))[: vec_env.num_envs]
        return np.moveaxis(space.low + uniform * (space.high - space.low), 0, 1).astype(np.float32)
    return rng.integers(space.n, size=(64, steps))[: vec_env.num_envs].T


def play(vec_env, actions):
    """Observations, contexts, rewards and dones of a rollout, each (steps, n, ...)."""
    results = [vec_env.step(action) for action in actions]
    return (
        np.stack([observation["observation"] for observation, *_ in results]),
        np.stack([observation["context"] for observation, *_ in results]),
        np.stack([reward for _, reward, _, _ in results]),
        np.stack([done for _, _, done, _ in results]),
    )


def set_state(vec_env, i, j, value):
    with torch.inference_mode():
        vec_env.simulator.state[i, j] = value


def assert_equal(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@every_family
def test_observations_lie_in_the_space_and_have_its_types(name):
    vec_env = make(name)
    observation = vec_env.reset()
    for action in draw_actions(vec_env, 50):
        for i in range(N):
            assert vec_env.observation_space.contains({key: value[i] for key, value in observation.items()})
        observation, reward, done, infos = vec_env.step(action)
        assert (reward.dtype, reward.shape, done.dtype, done.shape) == (np.float32, (N,), np.bool_, (N,))
        assert len({id(info) for info in infos}) == N


@every_family
def test_the_same_seed_gives_the_same_everything(name):
    first, second, other = make(name, seed=3), make(name, seed=3), make(name, seed=4)
    begun = [vec_env.reset() for vec_env in (first, second, other)]
    assert_equal(begun[0].values(), begun[1].values())
    assert not np.isin(begun[0]["context"], begun[2]["context"]).all()
    assert len(np.unique(begun[0]["context"], axis=0)) > 1
    actions = draw_actions(first, 60)
    one = play(first, actions)
    assert_equal(one, play(second, actions))
    first.seed(stream(3))
    assert_equal(first.reset().values(), begun[0].values())
    assert_equal(play(first, actions), one)


@every_family
def test_an_environment_does_not_depend_on_how_many_there_are(name):
    few, many = short(name, 2), short(name, 5)
    for vec_env in (few, many):
        vec_env.seed(11)
        vec_env.reset()
    a, b = play(few, draw_actions(few, 30)), play(many, draw_actions(many, 30))
    assert a[3].any()
    assert_equal(a, [value[:, :2] for value in b])


@every_family
def test_environment_i_has_the_seed_seed_plus_i_and_no_memory_of_before(name):
    one, other = short(name, 3), short(name, 3)
    assert one.seed(5) == [5, 6, 7]
    other.seed(6)
    other.reset()
    play(other, draw_actions(other, 9))
    other.seed(6)
    assert_equal([value[1:] for value in one.reset().values()], [value[:2] for value in other.reset().values()])


@every_family
def test_each_reset_and_each_episode_begins_anew(name):
    vec_env = short(name, 2, steps=3)
    contexts = [vec_env.reset()["context"] for _ in range(3)]
    contexts += [play(vec_env, draw_actions(vec_env, 3))[1][-1] for _ in range(3)]
    starts = [vec_env.reset()["observation"] for _ in range(5)]
    assert len(np.unique(np.concatenate(starts), axis=0)) == 10
    if not all(feature.is_choice for feature in vec_env.context_space.features):
        assert len(np.unique(np.concatenate(contexts), axis=0)) == 12


@every_family
def test_fresh_contexts_are_uniform_and_one_episode_says_nothing_about_the_next(name):
    space = FAMILIES[name].context_space
    n = 4000 if name in IN_TORCH else 1000  # MuJoCo makes the models of its episodes one by one
    vec_env = make(name, n, seed=1)
    first, second = vec_env.reset(), vec_env.reset()
    drawn = first["context"]
    assert space.in_training_range(np.clip(drawn.astype(np.float64), space.low, space.high)).mean() > 0.99
    reference = space.sample("train", 4000, seed=1)
    width = reference.max(axis=0) - reference.min(axis=0)
    assert (abs(np.quantile(drawn, [0.1, 0.3, 0.6, 0.8], axis=0) - np.quantile(reference, [0.1, 0.3, 0.6, 0.8], axis=0))
            < 0.1 * width).all()  # fmt: skip
    bound = 5 / np.sqrt(n)  # standard deviations of the correlation of what is independent
    correlation = np.corrcoef(drawn.T) - np.eye(len(space))
    assert abs(correlation).max() < bound
    rows = (np.concatenate(list(observation.values()), axis=1) for observation in (first, second))
    one, next_one = (values[:, values.std(axis=0) > 1e-9] for values in rows)
    k = one.shape[1]
    across = np.corrcoef(one.T, next_one.T)[:k, k:]
    assert abs(across).max() < bound


@every_family
def test_fixed_contexts_are_gone_through_in_steps_of_n_envs(name):
    family = FAMILIES[name]
    contexts = family.context_space.sample("interpolation", 5)
    vec_env = short(name, 3, steps=4, contexts=contexts)
    vec_env.seed(0)
    observation, episode = vec_env.reset(), np.zeros(3, dtype=int)
    for action in draw_actions(vec_env, 60):
        expected = contexts[(np.arange(3) + episode * 3) % 5]
        np.testing.assert_array_equal(observation["context"], expected.astype(np.float32))
        observation, _, done, _ = vec_env.step(action)
        episode += done
    assert (episode >= 15).all()
    both = [family.vec_env(3, contexts=5, seed=2, backend=backend).reset() for backend in ("batched", "gymnasium")]
    np.testing.assert_array_equal(both[0]["context"], both[1]["context"])  # pyright: ignore[reportCallIssue]


@every_family
def test_the_end_of_an_episode(name):
    vec_env = short(name, 4)
    vec_env.seed(1)
    before, returns, lengths, ends = vec_env.reset(), np.zeros(4), np.zeros(4, dtype=int), 0
    simulator, apart = vec_env.simulator, FAMILIES[name].physics()
    for action in draw_actions(vec_env, 40):
        state, columns = simulator.state.clone(), {name: values.clone() for name, values in simulator._c.items()}
        after, reward, done, infos = vec_env.step(action)
        returns, lengths = returns + reward, lengths + 1
        taken = simulator._action(to_tensor(action, simulator.action_space), checked=True)
        next_state, _, terminated = apart.step(state, taken, columns)
        last = apart.observe(next_state).numpy().astype(after["observation"].dtype)
        for i, info in enumerate(infos):
            if not done[i]:
                assert info == {}
                np.testing.assert_array_equal(after["context"][i], before["context"][i])
                np.testing.assert_array_equal(after["observation"][i], last[i])
                continue
            np.testing.assert_array_equal(info["terminal_observation"]["context"], before["context"][i])
            np.testing.assert_array_equal(info["terminal_observation"]["observation"], last[i])
            assert info["TimeLimit.truncated"] == (not terminated[i])
            assert bool(terminated[i]) or lengths[i] == 7
            assert info["episode"]["r"] == pytest.approx(returns[i], rel=1e-5, abs=1e-5)
            assert info["episode"]["l"] == lengths[i]
            assert info["episode"]["t"] >= 0
            returns[i], lengths[i], ends = 0, 0, ends + 1
        assert (lengths < 7).all()
        before = after
    assert ends >= 20


def test_an_episode_that_terminates_at_its_limit_was_not_cut_short():
    # A pole far out falls in the first step, which is also the last that the limit allows.
    vec_env = short("cartpole", 2, steps=1)
    vec_env.reset()
    set_state(vec_env, 0, 0, 3.0)
    _, _, done, infos = vec_env.step(np.zeros(2, dtype=int))
    assert done.all()
    assert [info["TimeLimit.truncated"] for info in infos] == [False, True]


@every_family
def test_the_time_limit_is_the_familys(name):
    vec_env = make(name, 1)
    vec_env.reset()
    limit = gym.spec(FAMILIES[name].id).max_episode_steps
    assert limit is not None
    lengths = []
    for action in draw_actions(vec_env, limit):
        for info in filter(None, vec_env.step(action)[3]):
            lengths.append(info["episode"]["l"])
            assert info["TimeLimit.truncated"] == (lengths[-1] == limit)
    assert lengths
    assert max(lengths) <= limit
    if name not in (
        "cartpole",
        "inverted_pendulum",
        "hopper",
        "walker2d",
        "ant",
        "ant_direction",
        "humanoid",
    ):  # which fall
        assert limit in lengths


@every_family
@pytest.mark.parametrize("duplicate", [lambda vec_env: pickle.loads(pickle.dumps(vec_env)), copy.deepcopy])
def test_a_copy_made_in_mid_episode_continues_identically(name, duplicate):
    vec_env = short(name)
    vec_env.reset()
    actions = draw_actions(vec_env, 40)
    play(vec_env, actions[:10])
    restored = duplicate(vec_env)
    assert_equal(play(vec_env, actions[10:]), play(restored, actions[10:]))


@every_family
def test_later_steps_leave_returned_arrays_alone_and_writing_to_them_is_harmless(name):
    kept, scribbled_on = short(name), short(name)
    returned = []
    for vec_env in (kept, scribbled_on):
        vec_env.seed(2)
    actions = iter(draw_actions(kept, 20))
    ours, theirs = kept.reset(), scribbled_on.reset()
    for action in actions:
        returned.append((ours, copy.deepcopy(ours)))
        assert_equal(ours.values(), theirs.values())
        for value in theirs.values():
            value[:] = np.nan
        ours, theirs = kept.step(action)[0], scribbled_on.step(action)[0]
    for observation, as_it_was in returned:
        assert_equal(observation.values(), as_it_was.values())


@pytest.mark.parametrize("name", CONTINUOUS)
def test_an_action_of_nan_names_the_environment_and_its_context(name):
    vec_env = make(name)
    context = vec_env.reset()["context"][4]
    actions = draw_actions(vec_env, 1)[0]
    actions[4, 0] = np.nan
    feature = vec_env.context_space.names[0]
    with pytest.raises(ValueError, match=r"environment 4: the state is no longer finite: action \[nan") as caught:
        vec_env.step(actions)
    assert f"'{feature}': {context[0]:.3f}"[:-1] in str(caught.value)


def test_a_state_that_diverges_names_the_environment():
    vec_env = make("cartpole")
    vec_env.reset()
    set_state(vec_env, 2, 3, 1e200)
    with pytest.raises(ValueError, match="environment 2: the state is no longer finite"):
        vec_env.step(np.zeros(N, dtype=int))


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.array([0, 0, 2, 0, 0, 0]), r"environment 2: expected an action in Discrete\(2\), got 2"),
        (np.array([0, 0, 0, -1, 0, 0]), "environment 3: .*got -1"),
        (np.zeros(N), "expected whole numbers .*float64"),
        (np.zeros(N - 1, dtype=int), r"expected actions of shape \(6,\), got shape \(5,\)"),
    ],
)
def test_wrong_discrete_actions_are_refused(actions, message):
    vec_env = make("cartpole")
    vec_env.reset()
    with pytest.raises(ValueError, match=message):
        vec_env.step(actions)


def test_wrong_use_is_refused():
    vec_env = make("pendulum")
    with pytest.raises(RuntimeError, match="reset"):
        vec_env.step(np.zeros((N, 1)))
    vec_env.reset()
    with pytest.raises(ValueError, match=r"shape \(6, 1\), got shape \(6,\)"):
        vec_env.step(np.zeros(N))
    with pytest.raises(ValueError, match="at least one environment"):
        make("pendulum", 0)
    with pytest.raises(ValueError, match="expected a device such as 'cpu', 'cuda' or 'auto', got 'gpu'"):
        hyperrl.load_family("pendulum").vec_env(2, device="gpu")
    with pytest.raises(ValueError, match="device='cuda' is for batched environments"):
        hyperrl.load_family("pendulum").vec_env(2, backend="gymnasium", device="cuda")
    with pytest.raises(ValueError, match=r"unknown backend 'bached'.*Did you mean 'batched'"):
        FAMILIES["pendulum"].vec_env(2, backend="bached")


@every_family
def test_contexts_out_of_bounds_are_refused_before_anything_happens(name):
    family = FAMILIES[name]
    feature = family.context_space.features[0]
    outside = feature.bounds[-1][1] + 1
    contexts = family.context_space.sample("train", 3)
    contexts[1, 0] = outside
    with pytest.raises(ValueError, match=f"'{feature.name}' must lie in"):
        make(name, contexts=contexts)
    vec_env = make(name)
    vec_env.set_options({"context": {feature.name: outside}})
    with pytest.raises(ValueError, match=f"'{feature.name}' must lie in"):
        vec_env.reset()
    assert vec_env.simulator.state is None
    assert np.isfinite(vec_env.reset()["context"]).all()


@every_family
def test_options_set_the_contexts_of_the_next_reset_only(name):
    vec_env = make(name, seed=0)
    space = vec_env.context_space
    chosen = space.sample("train", N, seed=9)
    fresh = vec_env.reset()["context"]
    vec_env.seed(stream(0))
    vec_env.set_options([{"context": space.as_dict(c)} if i % 2 else {} for i, c in enumerate(chosen)])
    observed = vec_env.reset()["context"]
    np.testing.assert_array_equal(observed[1::2], chosen[1::2].astype(np.float32))
    np.testing.assert_array_equal(observed[::2], fresh[::2])
    vec_env.seed(stream(0))
    np.testing.assert_array_equal(vec_env.reset()["context"], fresh)
    vec_env.set_options({"context": {}})
    np.testing.assert_array_equal(vec_env.reset()["context"], np.tile(space.default, (N, 1)).astype(np.float32))
    vec_env.set_options({"contxt": {}})
    with pytest.raises(ValueError, match=r"unknown option 'contxt'.*Did you mean 'context'"):
        vec_env.reset()
    vec_env.set_options([{}])
    with pytest.raises(ValueError, match="options for 6 environments, got 1"):
        vec_env.reset()


def test_attributes():
    vec_env = make("pendulum")
    contexts = vec_env.reset()["context"]
    np.testing.assert_allclose(vec_env.get_attr("context", [1, 3]), contexts[[1, 3]], rtol=1e-6)
    assert vec_env.get_attr("render_mode", 2) == [None]
    assert vec_env.get_attr("context_space") == [FAMILIES["pendulum"].context_space] * N
    assert not vec_env.has_attr("action_masks")
    with pytest.raises(AttributeError, match="set_options"):
        vec_env.set_attr("context", contexts[0])
    with pytest.raises(AttributeError, match="backend='gymnasium'"):
        vec_env.env_method("render")
    assert vec_env.env_is_wrapped(gym.wrappers.TimeLimit) == [False] * N


def test_the_backend_is_batched_where_there_is_physics(tmp_path):
    assert isinstance(FAMILIES["pendulum"].vec_env(2), BatchedVecEnv)
    assert isinstance(FAMILIES["pendulum"].vec_env(2, backend="gymnasium"), DummyVecEnv)
    text = (folder("envs") / "pendulum.toml").read_text(encoding="utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(text.replace('physics = "pendulum"\n', ""), encoding="utf-8")
    family = hyperrl.load_family(path)
    assert isinstance(family.vec_env(2), DummyVecEnv)
    with pytest.raises(ValueError, match="has no 'physics'"):
        family.vec_env(2, backend="batched")


@pytest.mark.parametrize(
    ("name", "algorithm"), [*((name, PPO) for name in PHYSICS), ("pendulum", A2C), ("pendulum", SAC)]
)
def test_algorithms_learn_in_it(name, algorithm):
    kwargs: dict[str, Any] = (
        dict(learning_starts=8, batch_size=16, buffer_size=1000) if algorithm is SAC else dict(n_steps=8)
    )
    if algorithm is PPO:
        kwargs["batch_size"] = 24
    vec_env = short(name)
    model: Any = algorithm("MultiInputPolicy", vec_env, seed=0, device="cpu", **kwargs)
    model.learn(2 * 8 * N)
    assert len(model.ep_info_buffer) > 0
    assert {"r", "l", "t"} <= set(model.ep_info_buffer[0])


def test_wrappers_and_callbacks_run_on_it():
    family = FAMILIES["pendulum"]
    vec_env = VecNormalize(family.vec_env(N), norm_obs_keys=["observation"])
    model = PPO(hyperrl.HyperPolicy, vec_env, n_steps=8, batch_size=24, seed=0, device="cpu")
    evaluation = VecNormalize(family.vec_env(2), norm_obs_keys=["observation"], training=False)
    callback = EvalCallback(evaluation, n_eval_episodes=2, eval_freq=8, verbose=0)
    model.learn(16 * N, callback=callback)
    assert np.isfinite(callback.last_mean_reward)
    # The return is the environments' own, not the one that VecNormalize has scaled: the pendulum's are hundreds.
    mean: Any = evaluate_policy(model, evaluation, n_eval_episodes=2)[0]
    assert mean < -100


def test_vec_monitor_counts_the_same():
    with pytest.warns(UserWarning, match="already wrapped with a `Monitor`"):
        monitor = VecMonitor(short("pendulum"))
    plain = short("pendulum")
    for vec_env in (monitor, plain):
        vec_env.seed(0)
        vec_env.reset()
    for action in draw_actions(plain, 14):
        for a, b in zip(monitor.step(action)[3], plain.step(action)[3], strict=True):
            assert ("episode" in a) == ("episode" in b)
            if "episode" in a:
                assert a["episode"]["r"] == pytest.approx(b["episode"]["r"], rel=1e-5)
                assert a["episode"]["l"] == b["episode"]["l"]


def first_end(env):
    """Step an environment of Gymnasium's with random actions until an episode ends; return that step."""
    env.action_space.seed(0)
    while True:
        step = env.step(env.action_space.sample())
        if np.any(step[2] | step[3]):
            return step


@every_family
def test_gymnasiums_vector_environment_does_what_its_own_do(name):
    family = FAMILIES[name]
    kwargs: dict[str, Any] = dict(num_envs=3, context=family.context_space.default, max_episode_steps=30)
    env: Any = gym.make_vec(family.id, **kwargs)
    same_step = dict(autoreset_mode=AutoresetMode.SAME_STEP)
    sync: Any = gym.make_vec(family.id, vectorization_mode="sync", vector_kwargs=same_step, **kwargs)
    for attribute in ("single_observation_space", "observation_space", "single_action_space", "action_space"):
        assert getattr(env, attribute) == getattr(sync, attribute)
    assert env.metadata["autoreset_mode"] == sync.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    types = []
    for one in (env, sync):
        one.reset(seed=0)
        observation, reward, terminated, truncated, info = first_end(one)
        assert one.observation_space.contains(observation)
        np.testing.assert_array_equal(info["_final_obs"], terminated | truncated)
        for last, ended in zip(info["final_obs"], terminated | truncated, strict=True):
            assert one.single_observation_space.contains(last) if ended else last is None
        arrays = [reward, terminated, truncated, info["final_obs"], info["_final_obs"]]
        types.append([(array.dtype, array.shape) for array in arrays])
    assert types[0] == types[1]
    statistics = gym.wrappers.vector.RecordEpisodeStatistics(env)
    statistics.reset(seed=1)
    assert first_end(statistics)[4]["episode"]["l"].max() > 1


def test_gymnasiums_vector_environment_seeds_options_and_errors():
    env: Any = gym.make_vec("hyperrl/Pendulum-v0", num_envs=3)
    first, second = env.reset(seed=7)[0], env.reset(seed=[7, 8, 9])[0]
    assert_equal(first.values(), second.values())
    assert not np.array_equal(env.reset()[0]["context"], first["context"])
    observation, _ = env.reset(options={"context": {"length": 0.7}})
    np.testing.assert_allclose(observation["context"], np.tile([10, 1, 0.7, 1], (3, 1)))
    with pytest.raises(ValueError, match="expected 3 seeds, got 2"):
        env.reset(seed=[1, 2])
    with pytest.raises(ValueError, match="unknown options"):
        env.reset(options={"low": 1})


@pytest.mark.gpu
@pytest.mark.parametrize("name", IN_TORCH)
def test_the_device_gives_what_the_processor_gives(name):
    cpu, cuda = short(name, 64), short(name, 64, device="cuda")
    for vec_env in (cpu, cuda):
        vec_env.seed(0)
        vec_env.reset()
    assert cuda.simulator.state is not None
    assert cuda.simulator.state.is_cuda
    actions = draw_actions(cpu, 30)
    for a, b in zip(play(cpu, actions), play(cuda, actions), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    restored = pickle.loads(pickle.dumps(cuda))
    assert_equal(play(cuda, actions), play(restored, actions))
    assert torch.device(FAMILIES[name].vec_env(2, device="auto").simulator.device).type == "cuda"  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("backend", ["batched", "gymnasium"])
@pytest.mark.parametrize("name", FAMILIES)
def test_irrelevant_features_change_nothing_but_the_context(name: str, backend: str) -> None:
    family = hyperrl.load_family(name)
    contexts = family.context_space.sample("interpolation", 3, 0)
    more = family.with_irrelevant(5)
    extended = np.hstack([contexts, np.random.default_rng(0).uniform(-1, 1, (3, 5))])
    plain: Any = family.vec_env(3, contexts=contexts, seed=1, backend=backend)
    distracting: Any = more.vec_env(3, contexts=extended, seed=1, backend=backend)
    observations = plain.reset(), distracting.reset()
    assert distracting.observation_space["context"].shape == (len(family.context_space) + 5,)
    plain.action_space.seed(0)
    for _ in range(30):
        np.testing.assert_array_equal(observations[0]["observation"], observations[1]["observation"])
        np.testing.assert_allclose(observations[1]["context"], extended, rtol=1e-6)
        actions = np.stack([plain.action_space.sample() for _ in range(3)])
        steps = plain.step(actions), distracting.step(actions)
        observations = steps[0][0], steps[1][0]
        np.testing.assert_array_equal(steps[0][1], steps[1][1])
    n = 64 if backend == "batched" else 4
    fresh: Any = more.vec_env(n, seed=1, backend=backend)
    seen = fresh.reset()["context"]
    assert len(np.unique(seen[:, -5:])) == seen[:, -5:].size
    if backend == "batched":
        np.testing.assert_array_equal(seen[:, :-5], family.vec_env(n, seed=1, backend=backend).reset()["context"])  # pyright: ignore[reportCallIssue]
