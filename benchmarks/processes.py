"""CPU time and memory of this process and its children, and running a measurement in a process of its own.

Worker processes count like threads: a build is no cheaper because its work happens next door. Python's own figures
know children only after they have ended, so on Linux the living ones are looked up in /proc. Elsewhere only ended
children are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
import json
import os
from pathlib import Path
import resource
import subprocess
import sys
import threading
from typing import Any

_HAS_PROC = sys.platform == "linux" and Path("/proc/self/stat").exists()
_SECONDS_BETWEEN_SAMPLES = 0.25


def _descendants(pid: int) -> Iterator[int]:
    """Yields the process ids of all living descendants of a process."""
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            pids = [int(word) for word in children.read_text().split()]
        except OSError:  # the thread has ended
            continue
        for child in pids:
            yield child
            yield from _descendants(child)


def cpu_seconds() -> float:
    """Returns the CPU time, user and system, used so far by this process and all its children, living or ended."""
    times = os.times()
    seconds = times.user + times.system + times.children_user + times.children_system
    if _HAS_PROC:
        for pid in _descendants(os.getpid()):
            try:
                # The command's name, in parentheses, may hold spaces; utime, stime, cutime, cstime are fields 14 to 17.
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            seconds += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return seconds


def _memory_bytes(pid: int | str, field: str) -> int:
    """Reads a field of /proc/<pid>/status that is given in KiB; 0 if the process has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) << 10
    return 0


def resident_bytes() -> int:
    """Returns the memory this process occupies now (outside Linux: its peak so far)."""
    return _memory_bytes("self", "VmRSS") if _HAS_PROC else _peak_from_usage()


def _peak_from_usage() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


class PeakMemory:
    """A context manager that finds the peak of resident memory, from start of the process to leaving the context.

    Of this process it takes the kernel's own record, which misses nothing. (VmHWM and not ru_maxrss, into which Linux
    carries the peak of the process that started this one.) Living children are looked at every quarter of a second.

    Attributes:
      peak_bytes: peak of this process plus peak of the sum of its children.
    """

    def __enter__(self) -> PeakMemory:
        self.peak_bytes = 0
        self._children_peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        if _HAS_PROC:
            self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        if _HAS_PROC:
            self._thread.join()
            self.peak_bytes = _memory_bytes("self", "VmHWM") + self._children_peak
        else:
            self.peak_bytes = _peak_from_usage()

    def _sample(self) -> None:
        while not self._stop.wait(_SECONDS_BETWEEN_SAMPLES):
            children = sum(_memory_bytes(pid, "VmRSS") for pid in _descendants(os.getpid()))
            self._children_peak = max(self._children_peak, children)


def run_child(module: str, *arguments: str) -> dict[str, Any]:
    """Runs ``python -m module arguments`` and returns the JSON object it prints as its last line.

    Raises:
      RuntimeError: if the program fails; what it wrote on stderr has been passed on.
    """
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stdout}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result
