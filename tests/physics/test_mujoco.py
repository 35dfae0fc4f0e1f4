"""MuJoCo's bodies: to the bit Gymnasium's environments, and the models compiled from changed definitions."""

import copy
import pickle
import sys
import textwrap
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from outside import python

import hyperrl
from hyperrl.families.definition import family_spec
from hyperrl.physics.libmujoco import library
from hyperrl.utils.definitions import folder, names

BASES = {
    name: {"id": spec.definition.base, **spec.definition.base_kwargs}
    for name in names("envs")
    if (spec := family_spec(name)).definition.physics == "mujoco"
    and spec.definition.base is not None
    and "ControlSuite" not in spec.definition.base  # tests/physics/test_suite.py
}
every_body = pytest.mark.parametrize("name", BASES)
EDITED = [name for name in BASES if family_spec(name).definition.model]
every_edited_body = pytest.mark.parametrize("name", EDITED)
mujoco = library()


def single(family: hyperrl.Family, context: Any, qpos: np.ndarray, qvel: np.ndarray) -> Any:
    """The family's environment in a context, begun at a state."""
    env: Any = family.make(context)
    env.reset(seed=0)
    begin(env.unwrapped.env.unwrapped, qpos, qvel)
    return env


def begin(inner: Any, qpos: np.ndarray, qvel: np.ndarray) -> None:
    mujoco.mj_resetData(inner.model, inner.data)
    inner.set_state(qpos, qvel)


def parts(physics: Any, state: Any) -> tuple[np.ndarray, np.ndarray]:
    """Positions and velocities of states (n, s)."""
    states = np.asarray(state)
    return states[:, physics._qpos], states[:, physics._qvel]


def motors(family: hyperrl.Family) -> int:
    """How many numbers an action has."""
    physics: Any = family.physics()
    return physics.env.model.nu


def play(env: Any, actions: Any) -> list[tuple[Any, ...]]:
    """Observations, rewards and terminations up to the first end."""
    said = []
    for action in actions:
        observation, reward, terminated, _, _ = env.step(action)
        said.append((observation, reward, terminated))
        if terminated:
            break
    return said


def assert_same(one: list[tuple[Any, ...]], other: list[tuple[Any, ...]]) -> None:
    assert len(one) == len(other)
    for (a, *b), (c, *d) in zip(one, other, strict=True):
        a, c = (x["observation"] if isinstance(x, dict) else x for x in (a, c))
        assert a.dtype == c.dtype
        assert_array_equal(a, c)
        assert b == d


@every_body
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("context", [{}, None])
def test_a_row_equals_the_environment_to_the_bit(name: str, threads: int, context: Any) -> None:
    family = hyperrl.load_family(name)
    contexts = None if context == {} else family.context_space.sample("extrapolation", 5)
    assert_rows_equal_environments(family, BASES[name], contexts, threads, steps=100)


def assert_rows_equal_environments(
    family: hyperrl.Family, base: dict[str, Any], contexts: Any, threads: int, steps: int
) -> None:
    """Compare rows of the physics with the family's environments, or at the default context with Gymnasium's."""
    default, n = contexts is None, 5 if contexts is None else len(contexts)
    contexts = family.context_space.default[None] if default else contexts
    vec_env: Any = family.vec_env(n, contexts=contexts, seed=1, threads=threads)
    physics, rng = vec_env.simulator.physics, np.random.default_rng(0)
    first, ended = vec_env.reset(), np.zeros(n, dtype=bool)
    assert physics.threads == threads
    envs = []
    for i, (qpos, qvel) in enumerate(zip(*parts(physics, vec_env.simulator.state), strict=True)):
        if default:
            env: Any = gym.make(**base, disable_env_checker=True).unwrapped
            begin(env, qpos, qvel)
        else:
            env = single(family, contexts[i], qpos, qvel)
        envs.append(env)
        inner = env if default else env.unwrapped.env.unwrapped
        assert_array_equal(first["observation"][i], inner._get_obs())
    space = vec_env.action_space
    for _ in range(steps):
        actions = (rng.uniform(-1.2, 1.2, (n, *space.shape)) * space.high).astype(np.float32)  # some are clipped
        observation, reward, done, infos = vec_env.step(actions)
        for i in np.flatnonzero(~ended):
            last = infos[i]["terminal_observation"] if done[i] else {key: x[i] for key, x in observation.items()}
            ((expected, value, terminated),) = play(envs[i], actions[i : i + 1])
            expected = expected["observation"] if isinstance(expected, dict) else expected
            assert last["observation"].dtype == expected.dtype == np.float64
            assert_array_equal(last["observation"], expected)
            assert reward[i] == np.float32(value)
            assert (done[i] and not infos[i]["TimeLimit.truncated"]) == terminated
        ended |= done


@every_body
def test_starts_are_the_environments_own(name: str) -> None:
    family, base = hyperrl.load_family(name), gym.make(**BASES[name]).unwrapped
    physics, space = family.physics(), family.context_space
    uniform = np.random.default_rng(0).random((1000, physics.uniforms))
    c = dict(zip(space.names, torch.from_numpy(space.default).repeat(1000, 1).T, strict=True))
    ours = physics.observe(physics.initial(torch.from_numpy(uniform), c)).numpy()
    base.reset(seed=0)
    theirs = np.stack([base.reset()[0] for _ in range(1000)])
    assert len(np.unique(ours, axis=0)) == 1000
    for statistic in (np.mean, np.std):
        assert (abs(statistic(ours, axis=0) - statistic(theirs, axis=0)) <= 0.15 * theirs.std(axis=0)).all()
    if not any(kind in name for kind in ("cheetah", "ant", "humanoid")):  # whose velocities are normal, or summed
        assert (abs(np.ptp(ours, axis=0) - np.ptp(theirs, axis=0)) <= 0.05 * np.ptp(theirs, axis=0)).all()


def recompiled(inner: Any, changes: dict[str, float]) -> Any:
    """The body of an environment, compiled from a definition with half of this and double of that."""
    spec = mujoco.MjSpec.from_file(inner.fullpath)
    spec.option.gravity = np.array(spec.option.gravity) * changes["opt.gravity"]
    for geom in spec.geoms:
        factor = changes.get(geom.parent.name, 1.0)
        geom.density *= factor
        geom.mass *= factor  # NaN where the density says it
        geom.friction *= changes["friction"]
    for actuator in spec.actuators:
        actuator.gear *= changes["gear"]
    return spec.compile()


@pytest.mark.parametrize(
    ("name", "context", "changes"),
    [
        ("hopper", {"torso_mass": 2.0, "friction": 0.5}, {"torso": 2.0, "friction": 0.5}),
        ("walker2d", {"torso_mass": 0.5, "friction": 2.0}, {"torso": 0.5, "friction": 2.0}),
        ("inverted_pendulum", {"cart_mass": 2.0, "pole_mass": 0.5}, {"cart": 2.0, "pole": 0.5, "friction": 1.0}),
    ],
)
@pytest.mark.parametrize("strength", [0.5, -0.5])
def test_an_edited_model_equals_one_compiled_from_a_changed_definition(
    name: str, context: Any, changes: Any, strength: float
) -> None:
    # Factors of two round nothing, so that the order of multiplications does not matter.
    context |= {"gravity": 9.81 / 2, "actuator_strength": 0.5, "action_factor": strength * 2}
    env: Any = hyperrl.load_family(name).make(context)
    env.reset(seed=0)
    edited: Any = env.unwrapped.env.unwrapped
    other: Any = gym.make(**BASES[name]).unwrapped
    other.model = recompiled(other, changes | {"opt.gravity": 0.5, "gear": strength})
    other.data = mujoco.MjData(other.model)
    qpos, qvel = edited.data.qpos.copy(), edited.data.qvel.copy()
    begin(other, qpos, qvel)
    rng = np.random.default_rng(0)
    for _ in range(200):  # also beyond where an episode ends
        action = rng.uniform(-1, 1, edited.model.nu)
        for inner in (edited, other):
            inner.do_simulation(action, inner.frame_skip)
        assert_array_equal(edited.data.qpos, other.data.qpos)
        assert_array_equal(edited.data.qvel, other.data.qvel)
    assert not np.array_equal(edited.data.qpos, qpos)


@pytest.mark.parametrize(("name", "seconds"), [("half_cheetah", 6), ("ant", 4), ("hopper", 6)])
def test_contacts_bear_the_weight_at_rest(name: str, seconds: float) -> None:
    context = {"gravity": 4.0, "torso_mass": 2.0, "friction": 0.7}
    env: Any = hyperrl.load_family(name).make(context)
    env.reset(seed=0)
    model, data = env.unwrapped.env.unwrapped.model, env.unwrapped.env.unwrapped.data
    mujoco.mj_step(model, data, nstep=round(seconds / model.opt.timestep))
    assert abs(data.qvel).max() < 1e-3
    upward, force = 0.0, np.zeros(6)
    for i in range(data.ncon):
        mujoco.mj_contactForce(model, data, i, force)
        upward += data.contact[i].frame.reshape(3, 3)[:, 2] @ force[:3]
    original: Any = gym.make(**BASES[name]).unwrapped
    mass = original.model.body_mass.sum() + original.model.body("torso").mass.item()  # twice the torso
    assert upward == pytest.approx(4.0 * mass, rel=1e-6)


@pytest.mark.parametrize("name", [name for name in EDITED if "action_factor" in family_spec(name).context_space.names])
def test_a_factor_of_minus_one_is_the_opposite_action(name: str) -> None:
    family = hyperrl.load_family(name)
    actions = np.random.default_rng(0).uniform(-1.5, 1.5, (60, motors(family)))
    envs: Any = [family.make({"action_factor": factor}) for factor in (1.0, -1.0)]
    for env in envs:
        env.reset(seed=3)
    assert_same(play(envs[0], actions), play(envs[1], -actions))


@every_edited_body
def test_nothing_compounds_and_derived_values_follow(name: str) -> None:
    family = hyperrl.load_family(name)
    space = family.context_space
    low, high = space.sample("extrapolation", 2, 0)
    actions = np.random.default_rng(0).uniform(-1, 1, (20, motors(family)))
    env: Any = family.make()
    model = env.unwrapped.env.unwrapped.model
    compiled = copy.copy(model)
    said = []
    for context in (low, high, low, space.default):
        env.reset(seed=1, options={"context": context})
        assert model.body_subtreemass[0] == pytest.approx(model.body_mass.sum())
        said.append(play(env, actions))
    assert_same(said[0], said[2])
    assert not np.array_equal(said[0][0][0]["observation"], said[1][0][0]["observation"])
    for field in ("body_mass", "body_inertia", "body_invweight0", "dof_invweight0", "actuator_gear", "geom_friction"):
        assert_array_equal(getattr(model, field), getattr(compiled, field))
    assert_array_equal(model.opt.gravity, compiled.opt.gravity)
    mass = next((feature for feature in space.names if feature.endswith("_mass")), None)
    if mass is None:
        return
    env.reset(options={"context": {mass: 1.5}})
    body = model.body(mass.removesuffix("_mass"))
    assert body.mass == 1.5 * compiled.body(body.id).mass
    assert_array_equal(body.inertia, 1.5 * compiled.body(body.id).inertia)


def test_what_mujoco_stops_is_named_and_takes_nothing_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    family = hyperrl.load_family("half_cheetah")
    vec_env: Any = family.vec_env(4, seed=0)
    vec_env.reset()
    simulator, actions = vec_env.simulator, torch.zeros(4, 6, dtype=torch.float64)
    whole = simulator.state.clone()
    expected = simulator.physics.step(whole, actions, simulator._c)[0]
    with torch.inference_mode():
        simulator.state[2, simulator.physics._qvel.start] = 1e14
    after, _, _ = simulator.physics.step(simulator.state, actions, simulator._c)
    assert after.isnan().all(dim=1).tolist() == [False, False, True, False]
    assert_array_equal(after[[0, 1, 3]], expected[[0, 1, 3]])
    with pytest.raises(ValueError, match=r"environment 2: the state is no longer finite.* in the context {'gravity': "):
        vec_env.step(actions.numpy())
    with torch.inference_mode():
        simulator.state[2] = whole[2]
    vec_env.step(actions.numpy())
    assert not list(tmp_path.iterdir())  # no log file of MuJoCo's


def test_a_copy_goes_on_in_mid_episode_with_all_that_the_solver_starts_from() -> None:
    vec_env: Any = hyperrl.load_family("half_cheetah").vec_env(4, seed=0, threads=1)
    vec_env.reset()
    rng = np.random.default_rng(0)
    for _ in range(30):
        vec_env.step(rng.uniform(-1, 1, (4, 6)))
    copies = [pickle.loads(pickle.dumps(vec_env)), copy.deepcopy(vec_env)]
    for _ in range(100):
        action = rng.uniform(-1, 1, (4, 6))
        observations = [env.step(action)[0]["observation"] for env in (vec_env, *copies)]
        assert_array_equal(observations[0], observations[1])
        assert_array_equal(observations[0], observations[2])
    assert copies[0].simulator.physics.threads == 1


def test_no_start_is_made_that_no_episode_begins_at(monkeypatch: pytest.MonkeyPatch) -> None:
    vec_env: Any = hyperrl.load_family("inverted_pendulum").vec_env(4, seed=0)
    physics, made = vec_env.simulator.physics, []
    initial = physics.initial
    monkeypatch.setattr(physics, "initial", lambda uniform, c: made.append(len(uniform)) or initial(uniform, c))
    vec_env.reset()
    ended = sum(int(vec_env.step(np.ones((4, 1)))[2].sum()) for _ in range(60))
    assert sum(made) == 4 + ended > 12


@every_body
def test_the_camera_follows_a_body_that_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    env: Any = hyperrl.load_family(name).make(render_mode="rgb_array")
    env.reset(seed=0)
    inner = env.unwrapped.env.unwrapped
    renderer = inner.mujoco_renderer
    monkeypatch.setattr(renderer, "render", lambda mode: np.full((2, 2, 3), renderer.camera_id))  # without OpenGL
    camera = env.render()[0, 0, 0]
    stays = name in ("inverted_pendulum", "reacher", "point_goal")  # within what the camera sees
    assert (camera == -1) == stays
    if not stays:
        before = inner.data.cam_xpos[camera].copy()
        inner.data.qpos[0] += 8
        env.step(np.zeros(env.action_space.shape))
        np.testing.assert_allclose(inner.data.cam_xpos[camera] - before, [8, 0, 0], atol=0.5)


def test_threads_and_devices_that_cannot_be_are_refused() -> None:
    family = hyperrl.load_family("hopper")
    with pytest.raises(ValueError, match="expected at least one thread, of MuJoCo, got threads=0"):
        family.vec_env(2, threads=0)
    with pytest.raises(ValueError, match="got threads=2 for Pendulum"):
        hyperrl.load_family("pendulum").vec_env(2, threads=2)
    with pytest.raises(ValueError, match="threads=2 is for batched environments"):
        family.vec_env(2, threads=2, backend="gymnasium")
    if not torch.cuda.is_available():  # on which tests/physics/test_warp.py has them stepped
        with pytest.raises(ValueError, match="device 'cuda': torch finds no CUDA device here"):
            family.vec_env(2, device="cuda")
    auto: Any = family.vec_env(2, device="auto")
    assert auto.simulator.device.type == "cpu"
    rows = torch.zeros(3, 2, device="meta")
    with pytest.raises(ValueError, match="run on the cpu, got tensors on meta"):
        family.physics().initial(rows, {})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("body_mass.torso", "body_mass.torsoo", "[model.scale] 'body_mass.torsoo': the model has no body 'torsoo'"),
        ("body_mass.torso", "body_mass.torsoo", "Did you mean 'torso'?"),
        ("body_mass.torso", "bodymass.torso", "'bodymass.torso': expected one of ['opt.gravity', "),
        ("body_mass.torso", "bodymass.torso", "Did you mean 'body_mass'?"),
        ("geom_friction", "geom_size", "'geom_size.*': expected one of"),
        ("opt.gravity", "opt.gravty", "Did you mean 'opt.gravity'?"),
        ("actuator_gear.*", "actuator_gear.7", "the model has no actuator '7': there are ['0', '1', '2']"),
        ('"torso_mass"', '"torso_maas"', "[model.scale] 'body_mass.torso': unknown name 'torso_maas'"),
        ('"torso_mass"', "3", "[model.scale] 'body_mass.torso': expected an expression in quotes, got 3"),
        ("[model.scale]", "[model.scales]", "[model] unknown key 'scales'"),
        ("[model.scale]", "[attributes]\nframe_skip = 'gravity'\n[model.scale]", "physics = 'mujoco' knows those of"),
        ("[model.scale]", "[attributes]\nframe_skip = ['gravity']\n[model.scale]", "it takes one expression, got"),
        ('base = "Hopper-v5"', "max_episode_steps = 9", "'model' is about the environment of 'base'"),
        ('base = "Hopper-v5"', 'base = "Pendulum-v1"', "[model] is about MuJoCo's, and Pendulum-v1 has no 'model'"),
        ('"Hopper-v5"', '"HumanoidStandup-v5"', "mujoco.humanoidstandup_v5.HumanoidStandupEnv: leave it out"),
        ('"gravity / 9.81"', '"1 / (gravity - gravity)"', "'opt.gravity': '1 / (gravity - gravity)' is no finite"),
    ],
)
def test_faults_of_a_definition_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (folder("envs") / "hopper.toml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the message is looked at below)
        hyperrl.load_family(path).vec_env(2)
    assert message in str(caught.value)
    assert str(caught.value).count(str(path)) == 1


def test_a_table_of_names_and_another_environments_model(tmp_path: Path) -> None:
    """Without ``physics``, the factors act on any environment with a model; groups of actuators go by patterns."""
    path = tmp_path / "mine.toml"
    path.write_text(
        """
        id = "hyperrl/Mine-v0"
        base = "Ant-v5"
        [features.gain]
        unit = "1"
        default = 1.0
        choices = [-1.0, 1.0]
        [model.scale]
        dof_damping."hip_[12]" = "2 * abs(gain)"
        [model.scale.actuator_gear]
        "*" = "gain"
        1 = "2"
        """,
        encoding="utf-8",
    )
    family = hyperrl.load_family(path)
    assert not family.has_physics
    env: Any = family.make({"gain": -1.0})
    model = env.unwrapped.env.unwrapped.model
    compiled = copy.copy(model)
    env.reset(seed=0)
    assert_array_equal(model.actuator_gear[:, 0] / compiled.actuator_gear[:, 0], [-1, -2, *[-1] * 6])
    doubled = np.isin(np.arange(model.nv), [model.joint(name).dofadr[0] for name in ("hip_1", "hip_2")])
    assert_array_equal(model.dof_damping, np.where(doubled, 2, 1) * compiled.dof_damping)


def test_without_mujoco_only_its_families_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = """
        import sys
        sys.modules["mujoco"] = None
        import hyperrl
        from hyperrl.cli.main import main
        hyperrl.load_family("half_cheetah")
        sys.argv = ["hyperrl", "list"]
        main()
    """
    assert "half_cheetah" in python(tmp_path, "-c", textwrap.dedent(program))
    monkeypatch.setitem(sys.modules, "mujoco", None)
    for use in ("make", "vec_env", "physics"):
        with pytest.raises(ValueError, match=r"needs MuJoCo 3\.17 or later: pip install 'mujoco>=3\.17'"):
            getattr(hyperrl.load_family("hopper"), use)()
