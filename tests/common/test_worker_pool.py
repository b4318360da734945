from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
import os
from pathlib import Path
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from landmark_triplets_tfds.common.worker_pool import WorkerPool
from landmark_triplets_tfds.errors import WorkerKilledError
from tests.support.competition import REPOSITORY

Task = tuple[str, int]


def square(task: Task) -> int:
    """Squares; kills its process where the file of this number says so, for as long as that is there."""
    folder, number = task
    if (Path(folder) / f"kill-{number}").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2


def tell_process(task: Task) -> int:
    return os.getpid()


def tell_memory_limit(task: Task) -> int:
    import loky.process_executor

    return int(vars(loky.process_executor)["_MAX_MEMORY_LEAK_SIZE"])


def take_time(task: tuple[str, float]) -> int:
    time.sleep(task[1])
    return os.getpid()


def refuse(task: Task) -> int:
    raise ValueError(f"not {task[1]}")


def run(
    pool: WorkerPool[Any, Any], function: Callable[[Any], Any], tasks: Sequence[Any], *more: Any, **options: Any
) -> Iterator[Any]:
    return pool.run(function, tasks, len(tasks), *more, **options)


def tasks_of(folder: Path, count: int = 40) -> list[Task]:
    return [(str(folder), number) for number in range(count)]


@pytest.mark.parametrize("num_workers", [1, 2, 5])
def test_gives_all_results(tmp_path: Path, num_workers: int) -> None:
    with WorkerPool[Task, int](num_workers) as pool:
        assert sorted(run(pool, square, tasks_of(tmp_path), are_large=True)) == [n**2 for n in range(40)]
        assert list(run(pool, square, [])) == []
        assert list(run(pool, square, tasks_of(tmp_path, 1))) == [0]
        # A worker that needs TensorFlow for an image is not restarted as one that leaks.
        assert num_workers == 1 or min(run(pool, tell_memory_limit, tasks_of(tmp_path), are_large=True)) == sys.maxsize


def test_one_worker_is_this_process(tmp_path: Path) -> None:
    with WorkerPool[Task, int](1) as pool:
        assert set(run(pool, tell_process, tasks_of(tmp_path), are_large=True)) == {os.getpid()}


def test_little_is_done_here(tmp_path: Path) -> None:
    """However long the first task takes, as one does that imports something."""
    with WorkerPool[Task, int](2) as pool:
        tasks = [(str(tmp_path), 1.2), *((str(tmp_path), 0.001) for _ in range(20))]
        assert set(run(pool, take_time, tasks)) == {os.getpid()}
        processes = list(run(pool, take_time, [(str(tmp_path), 0.2)] * 8))
    assert set(processes[:2]) == {os.getpid()}
    assert os.getpid() not in processes[2:]


@pytest.mark.parametrize("error", [FileNotFoundError("no semaphores"), AssertionError("daemonic")], ids=repr)
def test_where_no_process_can_be_started_this_one_does_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("loky.ProcessPoolExecutor", fail)
    with WorkerPool[Task, int](2) as pool:
        assert set(run(pool, tell_process, tasks_of(tmp_path), are_large=True)) == {os.getpid()}
        with pytest.raises(ValueError, match="not 0"):
            list(run(pool, refuse, tasks_of(tmp_path), are_large=True))
    assert capsys.readouterr().out.count(f"since others cannot be started: {error}.") == 1


def test_an_error_is_raised_here(tmp_path: Path) -> None:
    with WorkerPool[Task, int](2) as pool, pytest.raises(ValueError, match="not 0"):
        list(run(pool, refuse, tasks_of(tmp_path), are_large=True))


@pytest.mark.parametrize("killers", [[0], [39], [7, 8]])
def test_what_a_dead_worker_leaves_is_done_again(tmp_path: Path, killers: list[int]) -> None:
    """A task that kills while it is alone is left out."""
    for number in killers:
        (tmp_path / f"kill-{number}").touch()
    alone = []

    def judge(tasks: Sequence[Task]) -> Iterable[Task]:
        if len(tasks) == 1:
            alone.append(tasks[0][1])
            return []
        return tasks

    with WorkerPool[Task, int](2) as pool:
        results = sorted(run(pool, square, tasks_of(tmp_path), judge, are_large=True))
    assert results == [n**2 for n in range(40) if n not in killers]
    assert sorted(alone) == killers


def test_a_task_that_kills_every_worker_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "kill-3").touch()
    with WorkerPool[Task, int](2) as pool, pytest.raises(WorkerKilledError, match="killed 2 times"):
        list(run(pool, square, tasks_of(tmp_path), are_large=True))


def test_a_worker_killed_from_outside_costs_nothing(tmp_path: Path) -> None:
    with WorkerPool[Task, int](2) as pool:
        processes = list(run(pool, tell_process, tasks_of(tmp_path), are_large=True))
        os.kill(processes[0], signal.SIGKILL)
        assert sorted(run(pool, square, tasks_of(tmp_path), are_large=True)) == [n**2 for n in range(40)]


def test_leaving_ends_the_processes(tmp_path: Path) -> None:
    with WorkerPool[Task, int](2) as pool:
        processes = set(run(pool, tell_process, tasks_of(tmp_path), are_large=True))
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_workers_end_with_their_parent(tmp_path: Path, how: signal.Signals) -> None:
    """However it ends; and a script needs no guard."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, time\n"
        f"sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from landmark_triplets_tfds.common.worker_pool import WorkerPool\n"
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "with WorkerPool(2) as pool:\n"
        "    for result in pool.run(time.sleep, [0.1] * 1000, 1000, are_large=True):\n"
        "        print(*pool._executor._processes, flush=True)\n"
    )
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert parent.stdout is not None
    processes = [int(process) for process in parent.stdout.readline().split()]
    assert len(processes) == 2
    parent.send_signal(how)
    parent.wait(timeout=20)
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{process}").exists() for process in processes):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_worker_whose_parent_is_gone_already_ends() -> None:
    code = "from landmark_triplets_tfds.common import worker_pool as w; w._prepare_worker(0); w.time.sleep(60)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, timeout=50, check=False).returncode == 1


INTERRUPTED = """
import loky.process_executor as loky
from landmark_triplets_tfds.common.worker_pool import WorkerPool

def start(thread, whole=loky._ExecutorManagerThread.start):
    whole(thread)
    raise KeyboardInterrupt

loky._ExecutorManagerThread.start = start
if __name__ == "__main__":
    with WorkerPool(2) as pool:
        list(pool.run(abs, [1, 2], 2, are_large=True))
"""


def test_ctrl_c_while_workers_start_is_the_end(tmp_path):
    """Workers that nobody knew of would be waited for, for ever."""
    program = tmp_path / "interrupted.py"
    program.write_text(INTERRUPTED)
    ended = subprocess.run([sys.executable, program], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert "KeyboardInterrupt" in ended.stderr.splitlines()
