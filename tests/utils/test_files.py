import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest

from hyperrl.utils.files import held, new_folder, refuse_existing, write_bytes, write_text


def test_a_file_is_written_with_its_folder_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.txt"
    path.parent.mkdir(parents=True)
    (path.parent / ".c.txt.partial").write_text("of a process that was killed")
    for text in ("one", "two"):
        write_text(path, text)
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_a_file_keeps_its_content_where_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "c"
    write_text(path, "old")
    unwritable: Any = "no bytes"
    with pytest.raises(TypeError):
        write_bytes(path, unwritable)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def _fail(path: Path) -> None:
    with new_folder(path) as folder:
        (folder / "one").touch()
        (folder / "one").touch(exist_ok=False)


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder"
    (path.parent / ".folder.partial").mkdir(parents=True)
    (path.parent / ".folder.partial" / "old").touch()  # of a process that was killed
    with pytest.raises(FileExistsError):
        _fail(path)
    assert not list(path.parent.iterdir())
    with new_folder(path) as folder:
        (folder / "one").touch()
        assert not path.exists()
    assert [p.name for p in path.rglob("*")] == ["one"]
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(ValueError, match="is never overwritten"), new_folder(path):
        pass


def test_output_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    refuse_existing(tmp_path / "new" / "new" / "x")
    with pytest.raises(ValueError, match=r"file/x/y cannot be written: .*file is a file and no folder"):
        refuse_existing(tmp_path / "file" / "x" / "y")
    for name in ("file", "link", ""):
        with pytest.raises(ValueError, match="is never overwritten: do this"):
            refuse_existing(tmp_path / name, "do this")


def _hold(path: Path, ready: Any) -> None:
    with held(path):
        ready.set()
        multiprocessing.Event().wait()


def test_a_path_is_held_by_one_process_and_freed_by_its_death(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Event()
    process = spawn.Process(target=_hold, args=(tmp_path / "x", ready))
    process.start()
    assert ready.wait(60)
    with pytest.raises(ValueError, match=r"another process is writing .*x: wait"), held(tmp_path / "x", seconds=0):
        pass
    process.kill()
    process.join()
    with held(tmp_path / "x", seconds=5):
        assert (tmp_path / ".x.lock").exists()
    assert not list(tmp_path.iterdir())


def _count(folder: Path, times: int) -> None:
    """Add to a number by reading and writing it, under a lock that is made and removed each time."""
    for _ in range(times):
        with held(folder / "number", seconds=60):
            number = int((folder / "number").read_text())
            time.sleep(0)
            (folder / "number").write_text(str(number + 1))


def test_a_lock_that_is_removed_and_made_again_lets_one_in_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("0")
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_count, args=(tmp_path, 40)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert (tmp_path / "number").read_text() == "160"
    assert [path.name for path in tmp_path.iterdir()] == ["number"]
