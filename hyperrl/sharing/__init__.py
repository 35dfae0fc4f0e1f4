"""Sharing: trained agents as folders of numbers and text, those that come along, those of the Hugging Face Hub."""

from typing import TYPE_CHECKING

from hyperrl.utils.lazy import attach

if TYPE_CHECKING:
    from hyperrl.sharing.agent import SharedAgent as SharedAgent
    from hyperrl.sharing.agent import load_agent as load_agent
    from hyperrl.sharing.config import AgentConfig as AgentConfig
    from hyperrl.sharing.config import SplitScores as SplitScores
    from hyperrl.sharing.places import names as names
    from hyperrl.sharing.writing import share as share

__getattr__, __dir__ = attach(
    __name__,
    {
        "agent": ("SharedAgent", "load_agent"),
        "config": ("AgentConfig", "SplitScores"),
        "places": ("names",),
        "writing": ("share",),
    },
)
