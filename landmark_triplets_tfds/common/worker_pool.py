"""Functions run on tasks by worker processes: a private pool that outlives its workers.

The processes are loky's: new interpreters, not forks, so that neither TensorFlow nor threads of this process are
copied, and a script needs no ``__main__`` guard. Such a pool refuses all further work once a worker has died, as when
the system runs out of memory or a codec crashes. So the tasks that were under way are then run again in a new pool, one
at a time, which shows whose fault it was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
import itertools
import os
import signal
import sys
import threading
import time
from typing import Any, Generic, TypeVar

from landmark_triplets_tfds.common.progress import say
from landmark_triplets_tfds.errors import WorkerKilledError

Task = TypeVar("Task")
Result = TypeVar("Result")

# Work that takes no longer than this is done in this process: starting others takes about as long.
_WORTH_S = 1.0

# Tasks handed over for each worker: one that it works on, and what waits for it meanwhile.
_TASKS_PER_WORKER = 3

# How often a worker may die over a task that it has for itself.
_MAX_KILLS = 2

_PARENT_POLL_S = 0.2


class WorkerPool(Generic[Task, Result]):
    """Runs tasks in worker processes, or in this one where there is one worker or little to do. A context manager.

    Processes are started when they are first needed, and killed when the context is left.
    """

    def __init__(self, num_workers: int):
        """Takes the number of processes; 1: no process is started."""
        self._num_workers = num_workers
        self._executor: Any = None

    def __enter__(self) -> WorkerPool[Task, Result]:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def run(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        num_tasks: int,
        on_killed: Callable[[Sequence[Task]], Iterable[Task]] = iter,
        *,
        are_large: bool = False,
    ) -> Iterator[Result]:
        """Runs a function on each task, many at a time.

        Args:
          function: of a module, since processes import it; as its arguments and results are, it is sent to them.
          tasks: of about equal size; they are taken one after the other, when they are needed.
          num_tasks: how many there are.
          on_killed: is given the tasks that were under way when a worker died, and returns those to run again; a task
            may be replaced by others.
          are_large: True: even few of them are worth processes. Otherwise tasks are run in this process until they
            show that what is left will take longer than starting others.

        Yields:
          The results, in about the order of the tasks.

        Raises:
          WorkerKilledError: if workers die again and again over the same task.
        """
        waiting, under_way = iter(tasks), deque[tuple[Task, Any]]()
        if self._executor is None and not (are_large and self._num_workers > 1):
            yield from self._run_here(function, waiting, num_tasks)
        while True:
            for task in itertools.islice(waiting, max(0, _TASKS_PER_WORKER * self._num_workers - len(under_way))):
                under_way.append((task, self._submit(function, task)))
            if not under_way:
                return
            try:
                result = under_way[0][1].result()
            except BrokenProcessPool:
                yield from self._run_again(function, under_way, on_killed)
            else:
                under_way.popleft()
                yield result

    def _run_here(
        self, function: Callable[[Task], Result], waiting: Iterator[Task], num_tasks: int
    ) -> Iterator[Result]:
        """Runs tasks in this process: all, or until the quickest so far shows that others are worth starting.

        The first task tells nothing by itself: it may have imported something.
        """
        quickest_s = float("inf")
        for number, task in enumerate(waiting, 1):
            started = time.monotonic()
            result = function(task)
            quickest_s = min(quickest_s, time.monotonic() - started)
            yield result
            if self._num_workers > 1 and number > 1 and quickest_s * (num_tasks - number) > _WORTH_S:
                return

    def _run_again(
        self,
        function: Callable[[Task], Result],
        under_way: deque[tuple[Task, Any]],
        on_killed: Callable[[Sequence[Task]], Iterable[Task]],
    ) -> Iterator[Result]:
        lost = []
        for task, future in under_way:
            if future.done() and future.exception() is None:
                yield future.result()
            elif future.exception() is not None and not isinstance(future.exception(), BrokenProcessPool):
                raise future.exception()
            else:
                lost.append(task)
        under_way.clear()
        self._stop()
        again, num_kills = deque(on_killed(lost)), 0
        while again:
            task = again.popleft()
            try:
                yield self._submit(function, task).result()
                num_kills = 0
            except BrokenProcessPool:
                self._stop()
                left = list(on_killed([task]))
                num_kills = num_kills + 1 if len(left) == 1 and left[0] is task else 0
                if num_kills >= _MAX_KILLS:
                    raise WorkerKilledError(
                        f"A worker process was killed {num_kills} times over the same piece of work. Is there enough"
                        " memory? LANDMARK_TRIPLETS_WORKERS=1 takes least."
                    ) from None
                again.extendleft(reversed(left))

    def _submit(self, function: Callable[[Task], Result], task: Task) -> Any:
        future: Future[Result] = Future()
        if self._executor is None and self._num_workers > 1:
            self._start()
        try:
            if self._executor is not None:
                return self._executor.submit(function, task)
            future.set_result(function(task))
        except Exception as error:  # perhaps of a pool in which a worker has died since the last look
            future.set_exception(error)
        return future

    def _start(self) -> None:
        """Starts the processes. Where that cannot be, says so, and all is done in this process."""
        import loky

        arguments = {"initializer": _prepare_worker, "initargs": (os.getpid(),), "timeout": None}
        try:
            # Known before it starts anything: Ctrl-C may come now, and what is not shut down then never ends.
            self._executor = loky.ProcessPoolExecutor(self._num_workers, **arguments)
            self._executor.submit(os.getpid)
        except (OSError, AssertionError) as error:  # no semaphores, a limit, or this is a daemon
            say(f"All is done in this process, since others cannot be started: {error}.")
            self._num_workers, self._executor = 1, None

    def _stop(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, kill_workers=True)
            self._executor = None


def _prepare_worker(parent: int) -> None:
    """Leaves Ctrl-C to the parent, which ends its workers, and ends this process when the parent is gone."""
    import loky.process_executor

    # loky takes a worker that has grown by 300 MB for one that leaks, and starts another in its place: again and again,
    # where an image now and then needs TensorFlow, whose import takes more. Only later versions have an option for it.
    vars(loky.process_executor)["_MAX_MEMORY_LEAK_SIZE"] = sys.maxsize
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # TensorFlow, where an image needs it, would take memory of all GPUs, and greet in every process.
    os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_POLL_S)
    os._exit(1)
