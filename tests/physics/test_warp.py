"""MuJoCo Warp steps the bodies as MuJoCo does, but for rounding; what needs a GPU is marked so."""

import pickle
import sys
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from outside import python

import hyperrl
from hyperrl.physics.model_edit import value_of
from hyperrl.physics.warp import WarpPhysics

needs_warp = pytest.mark.skipif(find_spec("mujoco_warp") is None, reason="MuJoCo Warp is not installed")


@pytest.fixture(scope="module")
def cheetah() -> tuple[WarpPhysics, torch.Tensor, dict[str, torch.Tensor]]:
    """The physics of half a cheetah, states that MuJoCo reaches, and contexts inside and outside the range."""
    return reached("half_cheetah")


def reached(name: str, steps: int = 40) -> tuple[WarpPhysics, torch.Tensor, dict[str, torch.Tensor]]:
    import warp

    warp.config.optimization_level = 0  # half the time of compiling
    family = hyperrl.load_family(name)
    space = family.context_space
    contexts = np.concatenate([space.sample(split, 4, 0) for split in ("train", "extrapolation")])
    vec_env: Any = family.vec_env(len(contexts), contexts=contexts, seed=1, threads=1)
    vec_env.reset()
    rng = np.random.default_rng(0)
    for _ in range(steps):
        vec_env.step(rng.uniform(-1, 1, (len(contexts), *vec_env.action_space.shape)))
    simulator = vec_env.simulator
    return WarpPhysics(simulator.physics, "cpu"), simulator.state.clone(), simulator._c


def actions(physics: Any, n: int) -> torch.Tensor:
    space = physics.action_space
    return torch.from_numpy(1.2 * np.random.default_rng(1).uniform(space.low, space.high, (n, *space.shape)))


def steps(physics: Any, state: torch.Tensor, c: Any, n: int) -> None:
    for _ in range(n):
        state, _, _ = physics.step(state, actions(physics, len(state)), c)


def assert_steps_as_mujoco(physics: WarpPhysics, state: torch.Tensor, c: Any, n: int, atol: float) -> None:
    exact = physics._mujoco
    action = actions(physics, len(state))
    for _ in range(n):
        after, reward, terminated = exact.step(state, action, c)
        found, its_reward, its_terminated = physics.step(state, action, c)
        assert found.dtype == after.dtype
        assert found.shape == after.shape
        assert_allclose(physics.observe(found), exact.observe(after), atol=atol)
        assert_allclose(found[:, 0], after[:, 0])
        assert_allclose(its_reward, reward, atol=atol)
        assert torch.equal(its_terminated, terminated)
        state = after


@needs_warp
def test_a_step_is_mujocos_but_for_rounding(cheetah: Any) -> None:
    physics, state, c = cheetah
    assert_steps_as_mujoco(physics, state, c, n=5, atol=1e-3)
    default = {name: torch.full_like(values, values[0].item()) for name, values in c.items()}
    assert_steps_as_mujoco(physics, state, default, n=1, atol=1e-3)
    action = actions(physics, len(state))
    here, there = (physics.observe(physics.step(state, action, x)[0]) for x in (c, default))
    differs = (here - there).abs().amax(1)
    assert differs[0] == 0
    assert (differs[1:] > 0.1).all()


@needs_warp
@pytest.mark.parametrize("name", ["half_cheetah", "swimmer", "reacher", "ant"])
def test_all_that_a_context_changes_of_the_model_reaches_warp(name: str) -> None:
    import mujoco_warp

    family = hyperrl.load_family(name)
    space = family.context_space
    contexts = space.sample("extrapolation", 3, 0)
    exact: Any = family.physics()
    physics = WarpPhysics(exact, "cpu")
    c = dict(zip(space.names, torch.from_numpy(contexts).T, strict=True))
    worlds = physics._bind(c, 3)
    models = []
    for context in contexts:
        exact.edit.apply(exact.env.model, space.as_dict(context))
        models.append({field: np.array(value_of(exact.env.model, field)) for field in fields_of(mujoco_warp)})
    changed = {field for field in models[0] if any(not np.array_equal(models[0][field], m[field]) for m in models[1:])}
    assert {"actuator_gear", "dof_invweight0"} <= changed
    seen = {field for field in changed if not field.startswith(("cam_", "light_"))}
    assert seen <= worlds.live.keys()
    for field in seen:
        values = np.stack([model[field] for model in models])
        assert_allclose(worlds.live[field].reshape(values.shape), values, rtol=1e-6)


def fields_of(mujoco_warp: Any) -> list[str]:
    """Those of which MuJoCo Warp can have values for each environment."""

    def batched(kind: Any) -> list[str]:
        return [f.name for f in fields(kind) if getattr(f.type, "shape", ("",))[0] == "*"]

    options = [f"opt.{name}" for name in batched(mujoco_warp.Option) if name != "impratio_invsqrt"]
    return [*batched(mujoco_warp.Model), *options]


@needs_warp
def test_what_is_no_number_takes_nothing_along(cheetah: Any) -> None:
    physics, state, c = cheetah
    action = actions(physics, len(state))
    expected = physics.step(state, action, c)[0]
    broken, action = state.clone(), action.clone()
    broken[2, 12] = torch.nan
    broken[5, 12] = 1e14
    action[3, 0] = torch.nan
    after, _, _ = physics.step(broken, action, c)
    assert after.isnan().all(1).tolist() == [False, False, True, True, False, True, False, False]
    good = ~after.isnan().any(1)
    assert_allclose(after[good], expected[good], atol=1e-5)


@needs_warp
def test_contacts_beyond_the_room_are_said(cheetah: Any) -> None:
    physics, state, c = cheetah
    small = WarpPhysics(physics._mujoco, "cpu", contacts=1)
    with pytest.raises(ValueError, match=r"environment \d: more contacts than MuJoCo Warp has room for, 1 in each"):
        steps(small, state, c, 20)


@needs_warp
def test_environments_in_warp_train_an_agent_on_tensors(cheetah: Any) -> None:
    family = hyperrl.load_family("half_cheetah")
    vec_env: Any = family.vec_env(8, seed=0, backend="warp")
    assert isinstance(vec_env.physics, WarpPhysics)
    vec_env.simulator._limit.fill_(5)  # of an episode, which the next follows in another context
    model = hyperrl.DevicePPO(hyperrl.HyperPolicy, vec_env, n_steps=8, batch_size=32, n_epochs=1, device="cpu")
    before = vec_env.simulator.contexts
    model.learn(128)
    assert (vec_env.simulator.contexts != before).any(1).all()
    assert all(parameter.isfinite().all() for parameter in model.policy.parameters())
    copied = pickle.loads(pickle.dumps(vec_env))
    action = actions(vec_env.physics, 8)
    one, other = (env.step_tensors(action) for env in (vec_env, copied))
    assert_allclose(one.observation["observation"], other.observation["observation"], atol=1e-6)
    assert_allclose(one.reward, other.reward, atol=1e-6)


@needs_warp
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "atol"),
    [
        ("hopper", 1e-4),
        ("walker2d", 2e-3),
        ("swimmer", 1e-4),
        ("inverted_pendulum", 1e-4),
        ("reacher", 1e-4),
        ("cheetah_velocity", 1e-3),
        ("point_goal", 1e-4),
    ],
)
def test_every_other_body_steps_as_mujocos(name: str, atol: float) -> None:
    assert_steps_as_mujoco(*reached(name), n=5, atol=atol)


@needs_warp
@pytest.mark.slow
def test_an_ant_whose_friction_has_no_edges_steps_as_mujocos() -> None:
    physics, state, c = reached("ant", steps=0)
    for model in (physics._model, physics._mujoco.env.model):
        model.opt.cone = 1  # elliptic
    assert_steps_as_mujoco(physics, state, c, n=4, atol=0.02)


def test_what_warp_cannot_step_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="backend='warp' is for MuJoCo's bodies, not Pendulum"):
        hyperrl.load_family("pendulum").vec_env(2, backend="warp")
    with pytest.raises(ValueError, match="MuJoCo Warp cannot step HumanoidEnv: use backend='batched', device='cpu'"):
        hyperrl.load_family("humanoid").vec_env(2, backend="warp")
    monkeypatch.setitem(sys.modules, "mujoco_warp", None)
    monkeypatch.setattr("hyperrl.utils.extras.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs mujoco_warp: pip install mujoco_warp, or .* '\.\[gpu\]'"):
        hyperrl.load_family("hopper").vec_env(2, backend="warp")


def test_warp_is_imported_for_those_alone_who_ask_for_it(tmp_path: Path) -> None:
    program = (
        "import sys, hyperrl; hyperrl.load_family('hopper').vec_env(2).reset(); import hyperrl.physics.warp;"
        "assert not {'warp', 'mujoco_warp'} & set(sys.modules)"
    )
    python(tmp_path, "-c", program)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["half_cheetah", "hopper"])
def test_cuda_steps_as_mujoco(name: str) -> None:
    family = hyperrl.load_family(name)
    contexts = family.context_space.sample("extrapolation", 64, 0)
    exact: Any = family.vec_env(64, contexts=contexts, seed=1)
    other: Any = family.vec_env(64, contexts=contexts, seed=1, device="cuda")
    assert isinstance(other.physics, WarpPhysics)
    assert_allclose(other.reset()["observation"], exact.reset()["observation"])
    for _ in range(5):
        action = actions(exact.physics, 64).float()
        one, two = exact.step_tensors(action), other.step_tensors(action.cuda())
        assert two.reward.is_cuda
        assert_allclose(two.last["observation"].cpu(), one.last["observation"], atol=1e-3)
        assert_allclose(two.reward.cpu(), one.reward, atol=1e-3)
        assert torch.equal(two.terminated.cpu(), one.terminated)


@pytest.mark.gpu
def test_an_agent_learns_on_cuda() -> None:
    vec_env: Any = hyperrl.load_family("hopper").vec_env(256, seed=0, device="cuda")
    model = hyperrl.DevicePPO(hyperrl.HyperPolicy, vec_env, n_steps=16, batch_size=1024, device="cuda")
    model.learn(16 * 256 * 4)
    assert vec_env.simulator.episode.min() > 0
    assert all(parameter.isfinite().all() for parameter in model.policy.parameters())
