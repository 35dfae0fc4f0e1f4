"""Longer and shorter bodies of a MuJoCo model, which MuJoCo compiles anew for each."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

import numpy as np

from hyperrl.physics.libmujoco import library, quiet
from hyperrl.utils.errors import nearest

_PROBE: Final = 1.25
"""The factor of which the fields that change are learnt."""
_TREE: Final = ("bvh_child", "bvh_nodeid")
"""How the geoms of a body are sorted for collisions; simulations of one batch cannot differ in it."""


class Lengths:
    """Factors on the lengths of bodies.

    A body becomes longer away from the joint that holds it: its capsules and cylinders are stretched and keep their
    thickness, and all that sits on it, spheres, sites and the bodies after it, moves along. A mass that the definition
    gives stays, one that follows from a density grows. A root that moves up and down is raised or lowered, so that the
    lowest point of its bodies is where it was: a longer leg does not begin inside the floor.

    :param model: the model as it was compiled; it is not changed.
    :param spec: its definition, an ``MjSpec``. A copy of it is changed and compiled.
    :param targets: names of bodies, or patterns of names. Where two match a body, both factors count.
    :raises ValueError: for a body that there is not, with the nearest name; for one whose shape or inertia is not
        known to follow its length, and for a definition of another model.

    >>> spec = library().MjSpec.from_string("<mujoco><worldbody><body name='arm'><joint/>"
    ...     "<geom type='capsule' fromto='0 0 0 0 0 1' size='.1'/></body></worldbody></mujoco>")
    >>> model = spec.compile()
    >>> lengths = Lengths(model, spec, ["arm"])
    >>> lengths.compile([2.0]).geom_size, lengths.compile([1.0]).geom_size
    (array([[0.1, 1. , 0. ]]), array([[0.1, 0.5, 0. ]]))
    """

    def __init__(self, model: Any, spec: Any, targets: Sequence[str]) -> None:
        mujoco = library()
        self._spec = spec.copy()
        for texture in list(self._spec.textures):  # they take most of the time
            self._spec.delete(texture)
        for material in self._spec.materials:
            material.textures = [""] * len(material.textures)
        self._spec.compiler.settotalmass = -1  # it would undo the change of masses
        with quiet():
            base = self._spec.compile()
        self._density: float | None = None
        if spec.compiler.settotalmass > 0:
            self._density = mujoco.mj_getTotalmass(model) / mujoco.mj_getTotalmass(base)
        bodies = [body for body in self._spec.bodies if body.name != "world"]
        names = [body.name for body in bodies]
        if [model.body(i).name for i in range(1, model.nbody)] != names:
            raise ValueError(f"the definition has the bodies {names}, and the model others")
        self._parts = [_Body(body, model) for body in bodies]
        self._tree = [getattr(model, name).copy() for name in _TREE]
        self._targets: list[list[int]] = []
        for target in targets:
            try:
                found = matching("body", names, target)
                for i in found:
                    self._parts[i].check()
            except ValueError as error:
                raise ValueError(f"{target!r}: {error}") from None
            self._targets.append(found)
        self._scratch = mujoco.MjData(base)
        self._roots = self._find_roots(base)
        self._lowest = self._lowest_points(base)
        probe = self.compile([_PROBE] * len(targets))
        self.fields = [
            name
            for name in _fields()
            if name.endswith("_sameframe") or not np.array_equal(getattr(probe, name), getattr(base, name))
        ]
        """The fields of a model that change with the lengths."""

    def __deepcopy__(self, memo: object) -> Lengths:
        return self  # a definition cannot be copied by Python, and nothing here depends on the last factors

    def compile(self, factors: Sequence[float]) -> Any:
        """Return the model with bodies of other lengths, for each target a factor.

        Before it is used, ``mj_setConst`` must be called.

        :raises ValueError: for a factor that is not positive.
        """
        mujoco = library()
        product = np.ones(len(self._parts))
        for bodies, factor in zip(self._targets, factors, strict=True):
            if not factor > 0:
                raise ValueError(f"a factor on a length must be positive, got {factor:g}")
            product[bodies] *= factor
        for part, factor in zip(self._parts, product.tolist(), strict=True):
            part.stretch(factor)
        with quiet():
            model = self._spec.compile()
        if not all(np.array_equal(getattr(model, name), tree) for name, tree in zip(_TREE, self._tree, strict=True)):
            raise ValueError(f"with the factors {list(factors)}, MuJoCo sorts the model's geoms in another way")
        if self._density is not None:
            mujoco.mj_setTotalmass(model, mujoco.mj_getTotalmass(model) * self._density)
        for (body, is_free), before, now in zip(self._roots, self._lowest, self._lowest_points(model), strict=True):
            model.body_pos[body, 2] += before - now
            if is_free:
                model.qpos0[model.jnt_qposadr[model.body_jntadr[body]] + 2] += before - now
        return model

    def _find_roots(self, model: Any) -> list[tuple[int, bool]]:
        """Return the bodies on the world that move up and down, and whether each does so by a free joint."""
        mujoco = library()
        data = self._begun(model)
        roots = []
        for joint in range(model.njnt):
            body, kind = int(model.jnt_bodyid[joint]), model.jnt_type[joint]
            is_free = bool(kind == mujoco.mjtJoint.mjJNT_FREE)
            slides = kind == mujoco.mjtJoint.mjJNT_SLIDE and abs(data.xaxis[joint, 2]) > 0.5
            if model.body_parentid[body] == 0 and (is_free or slides):
                roots.append((body, is_free))
        return roots

    def _lowest_points(self, model: Any) -> list[float]:
        """Return the height of the lowest point of each root's bodies where the model begins."""
        kinds = library().mjtGeom
        data = self._begun(model)
        lowest = []
        for root, _ in self._roots:
            geoms = np.flatnonzero(model.body_rootid[model.geom_bodyid] == root)
            up = data.geom_xmat[geoms, 6:]  # the third row, (n, 3)
            is_round = np.isin(model.geom_type[geoms], [kinds.mjGEOM_SPHERE, kinds.mjGEOM_CAPSULE])
            radius = np.where(is_round, model.geom_size[geoms, 0], 0.0)
            center, half = model.geom_aabb[geoms, :3], model.geom_aabb[geoms, 3:] - radius[:, None]
            low = data.geom_xpos[geoms, 2] + (up * center).sum(axis=1) - (abs(up) * half).sum(axis=1) - radius
            lowest.append(float(low.min()) if len(low) else 0.0)
        return lowest

    def _begun(self, model: Any) -> Any:
        """Return where the bodies are at first."""
        self._scratch.qpos = model.qpos0
        library().mj_kinematics(model, self._scratch)
        return self._scratch


class _Body:
    """A body of a definition and where the things on it were."""

    def __init__(self, body: Any, model: Any) -> None:
        turning = _turning_joints(body)
        self._body = body
        self._anchor = np.array(turning[0].pos) if turning else np.zeros(3)
        """Where the joint holds it: what stays when its length changes."""
        shapes = [*body.geoms, *body.sites]
        spanned = [shape for shape in shapes if not np.isnan(shape.fromto[0])]  # from one end to the other
        placed = [*turning, *(shape for shape in shapes if shape not in spanned)]
        self._placed = [(thing, np.array(thing.pos)) for thing in placed]
        self._spanned = [(shape, np.array(shape.fromto)) for shape in spanned]
        self._sizes = [(geom, np.array(geom.size)) for geom in body.geoms]
        self._children = [(child, np.array(child.pos), _offset(child, model)) for child in body.bodies]
        self._factor = 1.0

    def check(self) -> None:
        """Refuse a body whose shape or inertia does not follow its length."""
        mujoco = library()
        name, kinds = self._body.name, mujoco.mjtGeom
        known = (kinds.mjGEOM_SPHERE, kinds.mjGEOM_CAPSULE, kinds.mjGEOM_CYLINDER)
        if any(geom.type not in known for geom in self._body.geoms):
            raise ValueError(f"the body {name!r} is not made of capsules, cylinders and spheres alone")
        if (
            self._body.explicitinertial
            and self._body.compiler.inertiafromgeom != mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_TRUE
        ):
            raise ValueError(f"the definition gives the body {name!r} an inertia, whatever its length")

    def stretch(self, factor: float) -> None:
        """Write the lengths into the definition."""
        if factor == self._factor:
            return
        self._factor = factor
        for thing, pos in self._placed:
            thing.pos = self._moved(pos)
        for shape, ends in self._spanned:
            shape.fromto = np.concatenate([self._moved(ends[:3]), self._moved(ends[3:])])
        for geom, size in self._sizes:
            geom.size = size * [1, factor, 1]  # of capsules and cylinders (radius, half length)
        for child, pos, offset in self._children:
            child.pos = self._moved(pos + offset) - offset

    def _moved(self, pos: np.ndarray) -> np.ndarray:
        return self._anchor + self._factor * (pos - self._anchor)


def _offset(child: Any, model: Any) -> np.ndarray:
    """Return where the joint of a body holds it, from the body's origin, along the axes of its parent."""
    turning = _turning_joints(child)
    offset = np.zeros(3)
    if turning:
        library().mju_rotVecQuat(offset, np.array(turning[0].pos), model.body_quat[child.id])
    return offset


def _turning_joints(body: Any) -> list[Any]:
    kinds = library().mjtJoint
    return [joint for joint in body.joints if joint.type in (kinds.mjJNT_HINGE, kinds.mjJNT_BALL)]


def matching(thing: str, names: Sequence[str], pattern: str) -> list[int]:
    """Return the places of the names that a pattern matches.

    :param thing: what the names are of, such as ``"body"``.
    :raises ValueError: where it matches none, with the nearest.
    """
    found = [i for i, name in enumerate(names) if fnmatchcase(name, pattern)]
    if not found:
        raise ValueError(f"the model has no {thing} {pattern!r}: there are {names}.{nearest(pattern, names)}")
    return found


def _fields() -> list[str]:
    """Return the names of the fields of which each simulation of a batch may have values of its own."""
    from mujoco.batch import MODEL_FIELDS

    return sorted(name for name in MODEL_FIELDS if not name.startswith("opt."))
