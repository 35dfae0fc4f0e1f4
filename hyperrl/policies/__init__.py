"""Stable-Baselines3 policies that get a context: as generated weights, as extra inputs, or not at all."""

from hyperrl.policies.actor_critic import ConcatPolicy as ConcatPolicy
from hyperrl.policies.actor_critic import HyperPolicy as HyperPolicy
from hyperrl.policies.actor_critic import UnawarePolicy as UnawarePolicy
from hyperrl.policies.context import ContextExtractor as ContextExtractor
from hyperrl.policies.context import ContextPolicy as ContextPolicy
