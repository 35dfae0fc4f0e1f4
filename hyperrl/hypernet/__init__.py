"""Hypernetworks in pure torch: networks that produce the weights of a target network from a context."""

from hyperrl.hypernet.encoders import CosSin as CosSin
from hyperrl.hypernet.encoders import NormBound as NormBound
from hyperrl.hypernet.encoders import TaskEmbedding as TaskEmbedding
from hyperrl.hypernet.encoders import mlp as mlp
from hyperrl.hypernet.extrapolation import SecantExtrapolation as SecantExtrapolation
from hyperrl.hypernet.extrapolation import inside_range as inside_range
from hyperrl.hypernet.grouping import Groups as Groups
from hyperrl.hypernet.grouping import distinct as distinct
from hyperrl.hypernet.grouping import is_static as is_static
from hyperrl.hypernet.grouping import static as static
from hyperrl.hypernet.heads import HEADS as HEADS
from hyperrl.hypernet.heads import AdapterHead as AdapterHead
from hyperrl.hypernet.heads import ChunkedHead as ChunkedHead
from hyperrl.hypernet.heads import FullHead as FullHead
from hyperrl.hypernet.heads import Head as Head
from hyperrl.hypernet.heads import LowRankHead as LowRankHead
from hyperrl.hypernet.heads import ModulatedHead as ModulatedHead
from hyperrl.hypernet.measures import effective_rank as effective_rank
from hyperrl.hypernet.measures import similarity as similarity
from hyperrl.hypernet.measures import squared_norm as squared_norm
from hyperrl.hypernet.network import INITS as INITS
from hyperrl.hypernet.network import HyperNetwork as HyperNetwork
from hyperrl.hypernet.schedules import Alternating as Alternating
