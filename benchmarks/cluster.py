"""Builds through Apache Beam beside the local build: images decoded and triplets made a second, and what Beam adds.

    python -m benchmarks.cluster --corpus CORPUS

It carries "How fast" and "Full-size runs" in docs/clusters.md. Every build is measured less a build of few triplets by
the same engine, which takes away what starting it costs: processes, imports, reading the table. So the figures are
those of a long job.
Flink's two slots are those of two task managers, each with one Python worker; it is left out where there is no Java or
Maven. A build there takes half a minute to start, a few seconds more or less, so give it a corpus of at least 10,000
images, or one that is multiplied with ``--times``. Of Flink it also says what was shuffled, and how large the largest
Python worker became.
"""

from __future__ import annotations

from collections.abc import Sequence
import contextlib
import functools
import math
from pathlib import Path
from typing import Any

from benchmarks import builds
from benchmarks.harness import Figures, PeakMemory, Program, print_figures, temporary_folder

_FN_API = "runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"
_FEW_TRIPLETS = 64  # enough that every worker has started, and has something to do
_SHUFFLE = "GroupCombine: Build_train/GroupByShard"  # what Flink calls the step before thumbnails are sent to shards

_LOCAL = "local, 2 workers"
_ENGINES: dict[str, Sequence[str] | None] = {
    _LOCAL: None,
    "FnApiRunner, in memory": [_FN_API],
    "FnApiRunner, 1 worker processes": [_FN_API, "direct_running_mode=multi_processing", "direct_num_workers=1"],
    "FnApiRunner, 2 worker processes": [_FN_API, "direct_running_mode=multi_processing", "direct_num_workers=2"],
}


def start_flink(stack: contextlib.ExitStack, folder: Path) -> Any:
    """Returns a Flink cluster that ends with the stack; None if there is none to be had."""
    from tests.cluster.fleet import Fleet, make_worker_python
    from tests.cluster.flink import FlinkCluster
    from tests.cluster.machines import NotAvailableError

    python = make_worker_python(folder, Path(__file__).resolve().parents[1], fresh=False)
    try:
        cluster = FlinkCluster(stack.enter_context(Fleet(folder)), folder, python)
    except NotAvailableError as error:
        print(f"Flink is left out: {error}.")
        return None
    print(cluster.versions)
    return cluster


def main() -> None:
    """Prints a table."""
    program = Program(__doc__, runs=3)
    add = program.parser.add_argument
    add("--config", default="128px_all", help="(default: %(default)s)")
    add("--engines", choices=("beam", "flink", "all"), default="all", help="beside the local build")
    add("--num-shards", type=int, default=8, metavar="N", help="(default: %(default)s)")
    with program, contextlib.ExitStack() as stack:
        args, corpus = program.args, program.corpus
        engines = dict(_ENGINES) if args.engines != "flink" else {_LOCAL: None}
        cluster = start_flink(stack, program.folder()) if args.engines != "beam" else None
        on_flink = {f"{cluster.name}, 2 slots": cluster.job_options()} if cluster else {}
        engines |= on_flink

        def build(name: str, max_examples: int | None) -> tuple[Figures, int]:
            with temporary_folder(program.work) as folder:
                figures, builder = builds.build(
                    args.config,
                    corpus,
                    folder,
                    workers=2,
                    beam_options=engines[name],
                    num_shards=args.num_shards,
                    max_examples_per_split=max_examples,
                )
            return figures, builder.info.metadata["counts"]["num_images_read"]

        def one_round(name: str) -> Figures:
            start, start_images = build(name, _FEW_TRIPLETS)
            with PeakMemory() as memory:
                whole, whole_images = build(name, None)
            num_triplets, wall_s, cpu_s = (whole[what] - start[what] for what in ("number", "wall s", "CPU s"))
            sent = cluster.num_bytes_sent(_SHUFFLE) if cluster and name in on_flink else math.nan
            return {
                "wall s": wall_s,
                "images/s": (whole_images - start_images) / wall_s,
                "triplets/s": num_triplets / wall_s,
                "CPU ms a triplet": cpu_s / num_triplets * 1000,
                "kB shuffled a triplet": sent / whole["number"] / 1000,
                "MB, largest worker": memory.largest_worker_bytes / 1e6,
            }

        results = program.alternate({name: functools.partial(one_round, name) for name in engines})
        for runs in results.values():
            for run, local in zip(runs, results[_LOCAL], strict=True):
                run["of that, added by Beam"] = run["CPU ms a triplet"] - local["CPU ms a triplet"]
        print_figures("build", results)


if __name__ == "__main__":
    main()
