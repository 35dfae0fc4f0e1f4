"""A real Ray cluster of two nodes on this machine, one of which is killed in the middle."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from numpy.testing import assert_array_equal

from hyperrl.experiments.engines import LocalEngine, State, Task, gather
from hyperrl.experiments.sweeps import SweepState, sweep
from hyperrl.experiments.tuning import tune
from tests.experiments import work

ray = pytest.importorskip("ray")

from ray.cluster_utils import Cluster  # noqa: E402

from hyperrl.experiments.ray_engine import RayEngine  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray warns of its own insides


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster whose first node, where the tasks are started, runs none; it soon finds out that a node is dead."""
    watching = dict(health_check_initial_delay_ms=500, health_check_period_ms=500, health_check_failure_threshold=4)
    head = dict(num_cpus=0, include_dashboard=False, _system_config=watching)
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(params=[True, False], ids=["shared storage", "brought back"])
def engine(request: Any, cluster: Any) -> RayEngine:
    return RayEngine(shared_storage=request.param)


def test_results_come_in_order_and_files_come_back(engine: RayEngine, tmp_path: Path) -> None:
    tasks = [Task((n,), tmp_path / "cells" / str(n)) for n in range(4)]
    assert gather(engine, work.square, tasks, 6, "test", progress=False) == [0, 1, 4, 9]
    assert [task.out.read_text() for task in tasks] == ["0", "1", "4", "9"]
    assert {path.name for path in (tmp_path / "cells").iterdir()} == {"0", "1", "2", "3"}


def test_a_task_that_fails_takes_no_other_along(engine: RayEngine, tmp_path: Path) -> None:
    tasks = [Task((n,), tmp_path / str(n)) for n in range(3)]
    outcomes = {outcome.index: outcome for outcome in engine.run(work.fail_on_odd, tasks)}
    assert (outcomes[0].value, outcomes[2].value) == (0, 4)
    assert isinstance(outcomes[1].error, ValueError)
    assert str(outcomes[1].error) == "1 is odd"


def test_a_node_that_dies_costs_what_came_after_the_last_checkpoint(
    engine: RayEngine, cluster: Any, tmp_path: Path
) -> None:
    n, doomed = 40, []
    doomed.append(cluster.add_node(num_cpus=2))
    cluster.wait_for_nodes()
    tasks = [Task((n,), tmp_path / str(i)) for i in range(4)]  # two on either node

    def kill_a_node_in_the_middle(state: State) -> None:
        if doomed and min(state.steps) > n // 2:
            cluster.remove_node(doomed.pop(), allow_graceful=False)

    outcomes = list(engine.run(work.count, tasks, kill_a_node_in_the_middle))
    assert not doomed
    assert [outcome.error for outcome in outcomes] == [None] * 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2", "3"]
    assert [(task.out / "result").read_text() for task in tasks] == [f"counted to {n}"] * 4
    counted = sorted(outcome.value for outcome in outcomes if outcome.value is not None)
    assert counted[2:] == [n, n]  # those of the node that lived
    assert all(0 < value < n for value in counted[:2])  # and those that went on from their checkpoint


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="num_cpus and num_gpus ≥ 0"):
        RayEngine(num_cpus=-1)


@pytest.mark.slow
def test_trials_of_a_search_run_on_a_cluster_that_shares_its_storage(cluster: Any, tmp_path: Path) -> None:
    best = tune("pendulum", "hyper-ppo", 4, 2048, out=tmp_path / "search", engine=RayEngine(shared_storage=True))
    assert best.source == tmp_path / "search" / "hyper-ppo-tuned.toml"
    assert len(list((tmp_path / "search").glob("trial-*.toml"))) == 4
    with pytest.raises(ValueError, match="got one without shared storage"):
        tune("pendulum", "hyper-ppo", out=tmp_path / "other", engine=RayEngine())


SWEEP = """
families = ["ode", "pendulum"]
agents = ["hyper-ppo", "concat-ppo", "unaware-ppo"]
steps = 20_000
seeds = 5
evaluate = {contexts = 5, episodes = 4}
"""


@pytest.mark.slow
def test_a_sweep_gives_the_same_numbers_on_either_engine_and_when_a_node_dies(
    cluster: Any, tmp_path: Path, record_property: Any
) -> None:
    (tmp_path / "sweep.toml").write_text(SWEEP)
    doomed = [cluster.add_node(num_cpus=2)]
    cluster.wait_for_nodes()
    killed: list[SweepState] = []

    def kill_a_node_in_the_middle(state: SweepState) -> None:
        if doomed and state.done > 10:
            cluster.remove_node(doomed.pop(), allow_graceful=False)
            killed.append(state)

    begun = time.monotonic()
    local = sweep(tmp_path / "sweep.toml", tmp_path / "local", engine=LocalEngine())
    between = time.monotonic()
    engine = RayEngine()
    on_ray = sweep(tmp_path / "sweep.toml", tmp_path / "ray", engine=engine, watch=kill_a_node_in_the_middle)
    record_property("seconds, local", round(between - begun))
    record_property("seconds, Ray with a node killed", round(time.monotonic() - between))
    assert killed
    assert killed[0].done < 30
    assert not local.errors
    assert not on_ray.errors
    assert list(local.reports) == list(on_ray.reports)
    assert len(local.reports) == 30
    for name, report in local.reports.items():
        other = on_ray.reports[name]
        assert report.model is not None
        assert other.model is not None
        assert report.model.sha256 == other.model.sha256
        for split, measured in report.splits.items():
            assert_array_equal(measured.returns, other.splits[split].returns)
