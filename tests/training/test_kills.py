"""A training is killed at each of its operations on files, and goes on as if it had not been."""

from pathlib import Path

import pytest
from outside import python

TESTS = Path(__file__).parents[1]
PROGRAM = """
import sys
from pathlib import Path
import torch
import torch._dynamo, torch.utils.tensorboard  # before the forks, each of which would import them
torch.set_num_threads(1)
import hyperrl
from hyperrl.training.loop import train
from hyperrl.training.run import Run
from killed import KILLED, at_every_operation, in_child
from stable_baselines3.common.callbacks import BaseCallback

folder, kind, every = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
folder.mkdir()
recipe = folder.parent / "pendulum.toml"  # as the family is called
recipe.write_text('''
algorithm = "PPO"
policy = "hyper"
n_envs = 4
normalize_reward = true
[hyperparameters]
n_steps = 8
batch_size = 32
n_epochs = 1
[policy_kwargs]
net_arch = [8]
embedding = [4]
''')

class Interrupt(BaseCallback):
    def _on_step(self):
        raise KeyboardInterrupt

def work(out=folder / "x", resume=False):
    train("pendulum", recipe, 64, 1, out, resume=resume, device="cpu", checkpoint_seconds=0)

def interrupted():
    try:
        train("pendulum", recipe, 64, 1, folder / "x", device="cpu", callback=Interrupt())
    except KeyboardInterrupt:
        pass

assert in_child(lambda: work(folder.parent / "whole")) == 0
whole = Run.open(folder.parent / "whole")
kills = 0
for k in at_every_operation(folder, interrupted if kind == "interrupted" else work, every):
    kills += 1
    left = sorted(path.name for path in folder.iterdir())
    if kind == "trained" and not (folder / "x").exists():
        assert in_child(lambda: work(resume=True)) == 0, (k, left)
    elif kind == "interrupted":
        assert in_child(lambda: work(resume=(folder / "x.partial").exists())) == 0, (k, left)
    run = Run.open(folder / "x")
    assert run.result.model == whole.result.model, (k, left)
    files = {path.name for path in run.path.iterdir() if "tfevents" not in path.name}
    assert files == {path.name for path in whole.path.iterdir() if "tfevents" not in path.name}, (k, left, files)
    assert {path.name for path in folder.iterdir()} <= {"x", ".x.lock"}, (k, left)
    assert {path.name for path in folder.iterdir()} == {"x"} or left == [".x.lock", "x"], (k, left)
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
print("kills", kills)
"""


def run(tmp_path: Path, kind: str, every: int) -> int:
    return int(python(TESTS, "-c", PROGRAM, tmp_path / "folder", kind, every).rpartition("kills ")[2])


@pytest.mark.slow
def test_a_training_killed_at_any_moment_goes_on(tmp_path: Path) -> None:
    assert run(tmp_path, "trained", 1) > 40


def test_a_training_killed_at_some_moments_goes_on(tmp_path: Path) -> None:
    assert run(tmp_path, "trained", 11) > 4


def test_an_interrupted_training_killed_while_it_cleans_up_is_in_nobodys_way(tmp_path: Path) -> None:
    assert run(tmp_path, "interrupted", 9) > 1
