"""What the encoder learns from, and that it does."""

import numpy as np
import torch
from numpy.testing import assert_array_equal

from hyperrl.alignment.history import History
from hyperrl.alignment.learning import Learner
from hyperrl.alignment.networks import AlignedDynamics


def learner(history: int = 4, n: int = 3, capacity: int = 60, masking: float = 0.0, **kwargs: float) -> Learner:
    torch.manual_seed(0)
    options = dict(batch_size=64, every=8, learning_rate=1e-3, seed=0) | kwargs
    return Learner(AlignedDynamics(1, 1, history), n, capacity, masking=masking, **options)


def filled(mine: Learner, steps: int) -> None:
    """Transitions that say where they come from: (environment, episode, step of it)."""
    rng = np.random.default_rng(0)
    n = mine.transitions.shape[1]
    episode, step = np.zeros(n), np.zeros(n)
    for _ in range(steps):
        ended = rng.random(n) < 0.2
        mine.add(np.stack([np.arange(n), episode, step], axis=1).astype(np.float32), ended)
        episode, step = episode + ended, np.where(ended, 0, step + 1)


def test_a_history_is_what_came_before_in_the_same_episode() -> None:
    mine = learner()
    filled(mine, 137)  # the ring of 20 steps goes round several times
    lengths = set()
    for _ in range(20):
        histories, present, following = (part.numpy() for part in mine.sample())
        for history, there, (row, episode, step) in zip(histories, present, following, strict=True):
            seen = history[there == 1]
            assert (seen[:, :2] == (row, episode)).all()
            assert_array_equal(seen[:, 2], step - 1 - np.arange(len(seen)))
            lengths.add(len(seen))
    assert lengths == {0, 1, 2, 3, 4}


def test_masking_hides_its_share() -> None:
    whole, masked = learner(), learner(masking=0.25)
    for mine in (whole, masked):
        filled(mine, 60)
    seen, hidden = (np.mean([mine.sample()[1].mean() for _ in range(100)]) for mine in (whole, masked))
    assert abs(hidden / seen - 0.75) < 0.02


def test_gradient_steps_are_in_proportion_to_transitions_however_they_come() -> None:
    at_once, often = learner(), learner()
    for mine, pause in ((at_once, 40), (often, 1)):
        taken = 0
        for i in range(40):
            mine.add(np.zeros((3, 3), dtype=np.float32), np.zeros(3, dtype=bool))
            taken += len(mine.learn(1.0)) if (i + 1) % pause == 0 else 0
        assert taken == 40 * 3 // 8


def test_the_error_falls_and_the_embedding_tells_contexts_apart() -> None:
    """A linear system x ← x + c·a, whose context c the embedding must hold in order to predict."""
    n = 96
    mine = learner(history=8, n=n, capacity=10_000, batch_size=128, every=48, learning_rate=3e-3)
    rng = np.random.default_rng(1)
    losses: list[float] = []
    history, c = History.empty(n, 8, 3), np.zeros(n)
    for _ in range(20):
        x, c = rng.normal(size=n), rng.uniform(-1, 1, size=n)
        history = History.empty(n, 8, 3)
        for t in range(20):
            a = rng.normal(size=n)
            rows = np.stack([x, a, c * a], axis=1).astype(np.float32)
            mine.add(rows, np.full(n, t == 19))
            history, x = history.with_transitions(rows), x + c * a
        losses += mine.learn(1.0)
    assert np.mean(losses[-50:]) < 0.25 * np.mean(losses[:20])
    with torch.no_grad():
        z = mine.dynamics.embed(torch.as_tensor(history.transitions), torch.as_tensor(history.present)).numpy()
    inputs = np.hstack([z, np.ones((n, 1))])
    weights = np.linalg.lstsq(inputs[:64], c[:64], rcond=1e-4)[0]
    assert np.corrcoef(inputs[64:] @ weights, c[64:])[0, 1] > 0.9
