"""Values and lengths of a MuJoCo model: as MuJoCo compiles them from a changed definition, and as physics says."""

import copy
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import hyperrl
from hyperrl.physics.lengths import Lengths
from hyperrl.physics.libmujoco import library, quiet
from hyperrl.physics.model_edit import ModelEdit
from tests.physics.test_mujoco import assert_rows_equal_environments

mujoco = library()
FEATURE = """
    [features.{name}]
    unit = "1"
    default = 1.0
    train = [0.8, 1.2]
    bounds = [0.5, 2.0]
"""


def family(tmp_path: Path, base: str, model: str, kwargs: str = "{}", physics: bool = True) -> hyperrl.Family:
    """A family with the features ``a`` and ``b``."""
    path = tmp_path / "mine.toml"
    features = "".join(FEATURE.format(name=name) for name in "ab")
    engine = 'physics = "mujoco"' if physics else ""
    text = f'id = "hyperrl/Mine-v0"\nbase = "{base}"\nbase_kwargs = {kwargs}\n{engine}\n{features}\n{model}'
    path.write_text(text, encoding="utf-8")
    return hyperrl.load_family(path)


def inner(env: Any) -> Any:
    """Gymnasium's environment inside a family's."""
    return env.unwrapped.env.unwrapped


def hopper(thigh: float, leg: float, height: float) -> Any:
    """The hopper, compiled from a definition with a thigh and a leg of other lengths."""
    base: Any = gym.make("Hopper-v5").unwrapped
    tree = ET.parse(base.fullpath)
    bodies = {body.get("name", ""): body for body in tree.iter("body")}

    def write(element: Any, key: str, *numbers: float) -> None:
        element.set(key, " ".join(map(repr, numbers)))

    geoms = {name: body.find("geom") for name, body in bodies.items()}
    write(bodies["torso"], "pos", 0.0, 0.0, height)
    # The thigh hangs from its origin: its geom is 0.225 below, its end, the knee, 0.45.
    write(geoms["thigh"], "pos", 0.0, 0.0, thigh * -0.22500000000000009)
    write(geoms["thigh"], "size", 0.05, thigh * 0.22500000000000003)
    # The leg's origin is in its middle, 0.25 below the knee.
    write(bodies["leg"], "pos", 0.0, 0.0, thigh * (-0.70000000000000007 + 0.25) - 0.25)
    write(geoms["leg"], "pos", 0.0, 0.0, 0.25 + leg * -0.25)
    write(geoms["leg"], "size", 0.04, leg * 0.25)
    write(bodies["foot"], "pos", 0.13, 0.0, 0.25 + leg * ((-0.35 + 0.1) - 0.25) - 0.1)
    with quiet():
        return mujoco.MjModel.from_xml_string(ET.tostring(tree.getroot(), encoding="unicode"))


def test_other_lengths_are_those_of_a_changed_definition_to_the_bit(tmp_path: Path) -> None:
    mine = family(tmp_path, "Hopper-v5", '[model.length]\nthigh = "a"\nleg = "b"\n[model.scale]\n"opt.gravity" = "b"')
    env: Any = mine.make({"a": 1.3, "b": 0.6})
    env.reset(seed=0)
    edited = inner(env)
    height = float(edited.model.body("torso").pos[2])
    assert height == pytest.approx(1.25 + 0.45 * 0.3 - 0.5 * 0.4)
    expected = hopper(1.3, 0.6, height)
    expected.opt.gravity *= 0.6
    data = mujoco.MjData(expected)
    data.qpos, data.qvel = edited.data.qpos, edited.data.qvel
    mujoco.mj_resetData(edited.model, edited.data)
    edited.set_state(data.qpos.copy(), data.qvel.copy())
    mujoco.mj_forward(expected, data)
    rng = np.random.default_rng(0)
    for _ in range(200):
        data.ctrl = action = rng.uniform(-1, 1, 3)
        edited.do_simulation(action, edited.frame_skip)
        mujoco.mj_step(expected, data, nstep=edited.frame_skip)
        assert_array_equal(edited.data.qpos, data.qpos)
        assert_array_equal(edited.data.qvel, data.qvel)


@pytest.mark.parametrize(
    ("base", "lengths"),
    [
        ("HalfCheetah-v5", '"[bf]*" = "a"'),
        ("Walker2d-v5", '"*leg*" = "a"\n"thigh" = "b"'),
        ("Humanoid-v5", '"*thigh" = "a"\n"*shin" = "a"'),  # with a free joint
    ],
)
def test_a_longer_leg_stands_on_the_floor_and_not_inside(tmp_path: Path, base: str, lengths: str) -> None:
    mine = family(tmp_path, base, f"[model.length]\n{lengths}", "{ reset_noise_scale = 0.0 }", physics=False)

    def clearance(context: Any) -> float:
        env: Any = mine.make(context)
        env.reset(seed=0)
        model, data = inner(env).model, inner(env).data
        floor = model.geom("floor").id
        return min(mujoco.mj_geomDistance(model, data, floor, i, 9.0, None) for i in range(model.ngeom) if i != floor)

    assert_allclose([clearance({"a": 1.7, "b": 1.2}), clearance({"a": 0.6})], clearance({}), atol=1e-9)


def test_a_density_makes_a_longer_body_heavier_also_where_the_total_mass_is_given(tmp_path: Path) -> None:
    """The cheetah's definition gives a total mass of 14 kg."""
    mine = family(tmp_path, "HalfCheetah-v5", '[model.length]\nbthigh = "a"\n[model.scale]\n"body_mass.f*" = "b"')
    env: Any = mine.make()
    env.reset(options={"context": {"a": 1.5}})
    model, before = inner(env).model, gym.make("HalfCheetah-v5").unwrapped.model  # pyright: ignore[reportAttributeAccessIssue]
    thigh, r, h = before.body("bthigh").id, 0.046, 0.145
    volume = [np.pi * r**2 * 2 * half + 4 / 3 * np.pi * r**3 for half in (h, 1.5 * h)]
    grown = np.ones(model.nbody)
    grown[thigh] = volume[1] / volume[0]
    assert_allclose(model.body_mass, grown * before.body_mass, rtol=1e-12)
    assert model.body_subtreemass[0] == pytest.approx(14 + (grown[thigh] - 1) * before.body_mass[thigh])
    env.reset(options={"context": {"b": 0.5}})
    assert_array_equal(model.geom_size, before.geom_size)
    assert_array_equal(model.body_mass[:5], before.body_mass[:5])
    assert_array_equal(model.body_mass[5:], 0.5 * before.body_mass[5:])


@pytest.mark.parametrize(
    ("base", "model"),
    [
        ("HalfCheetah-v5", '[model.length]\n"[bf]shin" = "a"\n[model.set]\n"geom_friction[0].*" = "b / 2"'),
        ("Ant-v5", '[model.length]\naux_1 = "a"\ntorso = "b"'),
        ("Reacher-v5", '[model.length]\n"body[01]" = "a"\n[model.scale]\n"dof_damping.*" = "b"'),
    ],
)
def test_rows_of_other_lengths_equal_the_environment_to_the_bit(tmp_path: Path, base: str, model: str) -> None:
    mine = family(tmp_path, base, model)
    assert_rows_equal_environments(
        mine, {"id": base}, mine.context_space.sample("extrapolation", 3), threads=2, steps=40
    )


def test_a_value_is_set_and_inertia_follows_the_mass() -> None:
    base: Any = gym.make("Walker2d-v5").unwrapped
    model, c = base.model, {"x": 3.0}
    compiled = copy.copy(model)
    mass = compiled.body("torso").mass[0]
    one = ModelEdit(compiled, set={"body_mass.torso": lambda c: c["x"], "opt.gravity[2]": lambda c: -c["x"]})
    other = ModelEdit(
        compiled, scale={"body_mass.torso": lambda c: c["x"] / mass, "opt.gravity": lambda c: c["x"] / 9.81}
    )
    assert_allclose(one.values(c)["body_inertia"], other.values(c)["body_inertia"], rtol=1e-15)
    assert_allclose(one.values(c)["opt.gravity"], other.values(c)["opt.gravity"], rtol=1e-15)
    for _ in range(2):
        one.apply(model, c)
        assert model.body("torso").mass == 3
        assert model.body_subtreemass[0] == pytest.approx(compiled.body_mass.sum() - mass + 3)
    both = ModelEdit(
        compiled,
        scale={"geom_friction[0].*": lambda c: 2.0},
        set={"geom_friction[0].*": lambda c: c["x"], "geom_friction[0].floor": lambda c: 0.5},
    )
    friction = both.values(c)["geom_friction"]
    assert_array_equal(friction[:, 0], np.where(np.arange(model.ngeom) == model.geom("floor").id, 1, 6))
    assert_array_equal(friction[:, 1:], compiled.geom_friction[:, 1:])


ROD = """
<mujoco>
  <option timestep="0.001"/>
  <worldbody>
    <body name="rod" pos="0 0 3">
      <joint name="hinge" axis="0 1 0"/>
      <geom type="cylinder" fromto="0 0 0 0 0 -1" size="0.001" density="1e5" contype="0"/>
    </body>
  </worldbody>
</mujoco>
"""


@pytest.mark.parametrize(("length", "gravity"), [(1.0, 9.81), (0.5, 9.81), (2.0, 3.7)])
def test_the_period_of_a_rod_is_that_of_a_physical_pendulum(length: float, gravity: float) -> None:
    """T = 2π √(2 l / 3 g) for a thin rod that hangs from its end."""
    spec = mujoco.MjSpec.from_string(ROD)
    model = spec.compile()
    edit = ModelEdit(model, spec, length={"rod": lambda c: c["l"]}, set={"opt.gravity[2]": lambda c: -c["g"]})
    edit.apply(model, {"l": length, "g": gravity})
    data = mujoco.MjData(model)
    data.qpos[0] = 0.02
    passed, last = [], 0.02
    while len(passed) < 3:
        mujoco.mj_step(model, data)
        if last * data.qpos[0] < 0:
            passed.append(data.time)
        last = data.qpos[0]
    assert passed[2] - passed[0] == pytest.approx(2 * np.pi * (2 * length / (3 * gravity)) ** 0.5, rel=2e-3)


def test_the_string_of_a_cup_is_a_range_of_a_tendon() -> None:
    model = mujoco.MjModel.from_xml_string("""
        <mujoco><worldbody><site name="hand"/><body name="ball"><freejoint/><geom size=".1"/><site name="top"/></body>
        </worldbody><tendon><spatial name="string" range="0 0.3" limited="true"><site site="hand"/><site site="top"/>
        </spatial></tendon></mujoco>""")
    ModelEdit(model, scale={"tendon_range.string": lambda c: 1.5}).apply(model, {})
    assert_allclose(model.tendon_range, [[0, 0.45]])


def test_an_actuator_moves_the_joint_whose_number_is_set(tmp_path: Path) -> None:
    """Hopper's motors are of one strength, so that to swap two of them is to swap two numbers of each action."""
    swapped = family(
        tmp_path, "Hopper-v5", '[model.set]\n"actuator_trnid[0].0" = "3 + a"\n"actuator_trnid[0].1" = "4 - a"'
    )
    physics: Any = swapped.physics()
    assert physics.env.model.actuator_trnid[:, 0].tolist() == [3, 4, 5]
    columns = {"a": torch.tensor([0.0, 1.0]).double(), "b": torch.ones(2).double()}
    state = physics.initial(torch.full((2, physics.uniforms), 0.3).double(), columns)
    for action in torch.rand(100, 3, generator=torch.Generator().manual_seed(0)).double() - 0.5:
        state, _, _ = physics.step(state, torch.stack([action, action[[1, 0, 2]]]), columns)
        assert_array_equal(state[0], state[1])
    with pytest.raises(ValueError, match="expected the number of a joint, 0 to 5, got 6"):
        ModelEdit(physics.env.model, set={"actuator_trnid[0].0": lambda c: 6.0}).values({})


@pytest.mark.parametrize(
    ("table", "target", "message"),
    [
        ("set", "opt.gravity", r"opt\.gravity has 3 numbers each: say which, such as 'opt\.gravity\[0\]'"),
        ("set", "geom_friction.floor", r"such as 'geom_friction\[0\]\.floor'"),
        ("set", "geom_friction[3].floor", "has the numbers 0 to 2 each"),
        ("scale", "opt.density[0]", r"opt\.density has one number each"),
        ("set", "body_mass.*", "where the compiled mass is 0"),
        (
            "set",
            "body_mass.tors",
            r"\[model\.set\] 'body_mass\.tors': the model has no body 'tors'.*Did you mean 'torso'",
        ),
        ("set", "body_mas.torso", r"Did you mean 'body_mass'\?"),
        ("set", "actuator_trnid[1].*", r"expected actuator_trnid\[0\] of actuators that move a joint"),
        ("scale", "actuator_trnid.*", r"cannot be scaled: use \[model\.set\]"),
        ("length", "fot", r"\[model\.length\] 'fot': the model has no body 'fot'.*Did you mean 'foot'\?"),
        ("length", "world", r"the model has no body 'world'"),
    ],
)
def test_what_cannot_be_changed_is_named(table: str, target: str, message: str) -> None:
    base: Any = gym.make("Hopper-v5").unwrapped
    tables: Any = {table: {target: lambda c: 1.0}}
    with pytest.raises(ValueError, match=message):
        ModelEdit.of(base, **tables)


def test_bodies_whose_length_is_not_known_are_refused() -> None:
    def lengths(body: str, **changes: Any) -> Lengths:
        spec = mujoco.MjSpec.from_string(
            f"<mujoco><worldbody><body name='arm'><joint type='hinge'/>{body}</body></worldbody></mujoco>"
        )
        return Lengths(spec.compile(), changes.get("spec", spec), ["arm"])

    with pytest.raises(ValueError, match="'arm': the body 'arm' is not made of capsules, cylinders and spheres alone"):
        lengths("<geom type='box' size='1 1 1'/>")
    with pytest.raises(ValueError, match="the definition gives the body 'arm' an inertia"):
        lengths("<geom size='1'/><inertial pos='0 0 0' mass='1' diaginertia='1 1 1'/>")
    rod = "<geom type='capsule' fromto='0 0 0 0 0 1' size='.1'/>"
    with pytest.raises(ValueError, match="must be positive, got -1"):
        lengths(rod).compile([-1.0])
    with pytest.raises(ValueError, match=r"has the bodies \[\], and the model others"):
        lengths(rod, spec=mujoco.MjSpec.from_string("<mujoco/>"))
    with pytest.raises(ValueError, match=r"\[model\.length\] the definition of the model is not known"):
        ModelEdit(mujoco.MjSpec.from_string("<mujoco/>").compile(), length={"arm": lambda c: 1.0})
