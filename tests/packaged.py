"""The packaged families, and the physics of those that have it, which takes MuJoCo a while: made once a process."""

import hyperrl
from hyperrl.utils.definitions import names

FAMILIES = {name: hyperrl.load_family(name) for name in names("envs")}
PHYSICS = {name: family.physics() for name, family in FAMILIES.items() if family.has_physics}
IN_TORCH = [name for name, physics in PHYSICS.items() if physics.device is None]
