"""Equations, one family a file, as pure functions on tensors, with the drawings of their states.

Nothing here knows of episodes, random numbers or learning.
"""

from hyperrl.physics.base import Context as Context
from hyperrl.physics.base import Physics as Physics
from hyperrl.physics.base import columns as columns
from hyperrl.physics.canvas import Canvas as Canvas
from hyperrl.physics.canvas import Frame as Frame
from hyperrl.physics.registry import PHYSICS as PHYSICS
from hyperrl.physics.registry import load as load
