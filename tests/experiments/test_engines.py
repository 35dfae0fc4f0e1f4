import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hyperrl.experiments.engines import Engine, LocalEngine, State, Task, gather
from tests.experiments import work

ROOT = Path(__file__).parents[2]


def tasks(n: int, folder: Path) -> list[Task]:
    return [Task((i,), folder / str(i)) for i in range(n)]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def wait_for(condition: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def test_results_come_in_order_and_steps_add_up(tmp_path: Path) -> None:
    states: list[State] = []
    engine = LocalEngine(2)
    outcomes = sorted(engine.run(work.square, tasks(5, tmp_path), states.append), key=lambda outcome: outcome.index)
    assert [outcome.value for outcome in outcomes] == [0, 1, 4, 9, 16]
    assert [(tmp_path / str(i)).read_text() for i in range(5)] == ["0", "1", "4", "9", "16"]
    assert list(states[-1].steps) == [0, 1, 2, 3, 4]
    assert all(len(state.running) <= 2 for state in states)
    assert gather(engine, work.square, tasks(3, tmp_path), 3, "test", progress=False) == [0, 1, 4]
    assert gather(engine, work.square, [], 0, "test", progress=False) == []


@pytest.mark.parametrize(("function", "message"), [(work.fail_on_odd, "1 is odd"), (work.die_on_odd, "died")])
def test_a_task_that_fails_or_dies_takes_no_other_along(function: Any, message: str, tmp_path: Path) -> None:
    outcomes = {outcome.index: outcome for outcome in LocalEngine(2).run(function, tasks(5, tmp_path))}
    assert {i: outcomes[i].value for i in (0, 2, 4)} == {0: 0, 2: 4, 4: 16}
    assert message in str(outcomes[1].error)
    assert outcomes[3].error is not None
    with pytest.raises((ValueError, RuntimeError), match=message):
        gather(LocalEngine(1), function, tasks(5, tmp_path), 1, "test", progress=False)


def test_closing_ends_what_runs_and_begins_no_more(tmp_path: Path) -> None:
    long = [Task((0.0,), tmp_path / "0"), *(Task((60.0,), tmp_path / str(i)) for i in (1, 2, 3))]
    begun = time.monotonic()
    with closing(LocalEngine(2).run(work.sleep, long)) as outcomes:
        assert next(outcomes).index == 0
        wait_for((tmp_path / "1").exists)
    assert time.monotonic() - begun < 30
    assert not is_alive(int((tmp_path / "1").read_text()))
    assert not list(tmp_path.glob("[123].finished"))
    assert not (tmp_path / "3").exists()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_the_one_that_started_it(how: signal.Signals, tmp_path: Path) -> None:
    program = f"""
import signal
from pathlib import Path
from hyperrl.experiments.engines import LocalEngine, Task, gather
from tests.experiments.work import sleep
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits it ignored
    tasks = [Task((60.0,), Path({str(tmp_path)!r}) / str(i)) for i in range(4)]
    gather(LocalEngine(2), sleep, tasks, 1, "test", progress=False)
"""
    (tmp_path / "program.py").write_text(program)
    environment = os.environ | dict(PYTHONPATH=str(ROOT))
    parent = subprocess.Popen([sys.executable, tmp_path / "program.py"], env=environment, stderr=subprocess.DEVNULL)
    wait_for(lambda: all((tmp_path / name).exists() and (tmp_path / name).read_text() for name in "01"), 60)
    pids = [int((tmp_path / name).read_text()) for name in "01"]
    parent.send_signal(how)
    parent.wait(20)
    wait_for(lambda: not any(map(is_alive, pids)))
    assert not (tmp_path / "2").exists()


def test_an_engine_needs_a_worker() -> None:
    with pytest.raises(ValueError, match="at least one task at a time, got 0"):
        LocalEngine(0)
    assert issubclass(LocalEngine, Engine)
