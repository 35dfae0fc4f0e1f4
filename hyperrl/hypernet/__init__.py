"""Hypernetworks in pure torch: networks that produce the weights of a target network from a context."""

from hyperrl.hypernet.encoders import mlp as mlp
from hyperrl.hypernet.grouping import Groups as Groups
from hyperrl.hypernet.grouping import distinct as distinct
from hyperrl.hypernet.heads import HEADS as HEADS
from hyperrl.hypernet.heads import FullHead as FullHead
from hyperrl.hypernet.heads import LowRankHead as LowRankHead
from hyperrl.hypernet.network import HyperNetwork as HyperNetwork
