"""Random numbers and contexts of episodes, as tensors: a function of seed and episode, with no state to keep."""

from __future__ import annotations

import torch
from torch import Tensor

from hyperrl.contexts import ContextSpace


def uniform(keys: Tensor, episodes: Tensor, count: int) -> Tensor:
    """Return ``count`` numbers in [0, 1) for each episode of each environment, float64 ``(n, m, count)``.

    A counter-based generator, so that no row has a state that another row, or how many there are, could move: number
    ``j`` of episode ``e`` is number ``2**16 * e + j`` of the environment's SplitMix64 sequence (Steele et al. 2014).

    :param keys: where each environment's sequence starts, 64 bits as int64, shape ``(n,)``.
    :param episodes: their numbers, from 0, int64 of shape ``(n, m)``.
    :param count: how many numbers.

    >>> uniform(torch.tensor([0]), torch.tensor([[0, 1]]), 2)
    tensor([[[0.8833, 0.4315],
             [0.6458, 0.3382]]], dtype=torch.float64)
    """
    counter = (episodes[..., None] << 16) + torch.arange(1, count + 1, device=keys.device)  # (n, m, count)
    bits = splitmix64(keys[:, None, None] + counter * _GOLDEN)
    return _shift(bits, 11).double() * 2.0**-53


def splitmix64(x: Tensor) -> Tensor:
    """Hash 64 bits to 64 bits, the finaliser of SplitMix64; int64 arithmetic wraps as that of 64-bit words does."""
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def signed(word: int) -> int:
    """Return the int64 with the bits of a whole number's lowest 64.

    >>> signed(2**64 - 1), signed(2**64 + 5), signed(-3)
    (-1, 5, -3)
    """
    return (word + 2**63) % 2**64 - 2**63


def training_contexts(context_space: ContextSpace, numbers: Tensor) -> Tensor:
    """Map numbers in [0, 1), shape ``(n, d)``, to contexts of the training range: ``from_uniform`` on tensors.

    >>> from hyperrl.contexts import ContextSpace, Feature
    >>> gain = ((-1.0, -0.5), (0.5, 1.0))
    >>> space = ContextSpace((Feature("gain", "1", 1.0, train=gain, bounds=gain),))
    >>> training_contexts(space, torch.tensor([[0.0], [0.25], [0.75]], dtype=torch.float64)).ravel()
    tensor([-1.0000, -0.7500,  0.7500], dtype=torch.float64)
    """
    low, high, ends = (torch.from_numpy(table).to(numbers.device) for table in context_space.train_table)  # (m, d)
    along = numbers * ends[-1]
    value = torch.minimum(low[0] + along, high[0])
    for i in range(1, len(ends)):
        beyond = torch.minimum(torch.maximum(low[i] + (along - ends[i - 1]), low[i]), high[i])
        value = torch.where(along >= ends[i - 1], beyond, value)
    return value


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shift right and fill with zeros; torch fills with the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


_GOLDEN = signed(0x9E3779B97F4A7C15)
_MIX_1 = signed(0xBF58476D1CE4E5B9)
_MIX_2 = signed(0x94D049BB133111EB)
