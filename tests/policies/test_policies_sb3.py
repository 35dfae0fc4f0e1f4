"""Part of Stable-Baselines3's own tests, with hypernetwork policies in place of its own; scripts/test-sb3 runs all."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "test-sb3"
FILES = ("save_load", "predict", "deterministic", "custom_policy", "train_eval_mode", "cnn", "sde")


@pytest.mark.slow
def test_stable_baselines3_tests_of_policies_pass() -> None:
    files = [f"tests/test_{name}.py" for name in FILES]
    run = subprocess.run([SCRIPT, "-q", "-p", "no:cacheprovider", *files], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-10_000:] + run.stderr[-2_000:]
    made = {line.split()[1] for line in run.stdout.partition("= policies =")[2].splitlines() if len(line.split()) == 2}
    assert made == {"HyperPolicy", "HyperSACPolicy", "HyperTD3Policy", "HyperDQNPolicy"}
