"""How fast datasets are built, beside the notebook's procedure, a plain TFDS builder and the bare codecs.

    python -m benchmarks.build_speed --corpus CORPUS

It carries the tables under "Building" in docs/performance.md. Everything is measured in turns on the same files, in
this process, after imports, with the files in the page cache; every build goes to a new folder and, but for the case
named so, starts with an empty bank of thumbnails. The notebook's procedure and the plain TFDS builder make part of the
triplets, evenly spread over all: their time goes triplet by triplet, and planning is added in proportion.
`yardsticks` says what is compared with. Targets are for 2 cores with nothing else running, and photographs.
"""

from __future__ import annotations

from collections.abc import Mapping
import functools
from pathlib import Path
from typing import Any

import loky

from benchmarks import builds, yardsticks
from benchmarks.harness import Case, Figures, Program, Results, measure_each, print_figures, ratio, temporary_folder
from landmark_triplets_tfds import LandmarkTripletsConfig

NOTEBOOK, NOTEBOOK_ALL, TF_LOOP = "notebook", "notebook, all", "bare TensorFlow loop, images"
AS_WRITTEN = "notebook, all, as written"
PLAIN = "plain TFDS builder"
TWO, ALL, AREA = "128px", "128px_all", "128px_area_all"
ONE_WORKER, TWO_WORKERS = "128px_all, 1 worker", "128px_all, 2 workers"
SLOW, SLOW_WORKERS, SLOW_S = "128px_all, 1 ms more an image, 8 workers", 8, 0.001
FULL_BANK, CONSTANT = "128px_all, full bank", "constant records"
CODEC_LOOP, AREA_LOOP = "codec loop, images", "make_thumbnail, area, images"
OPENCV, OPENCV_OPTIMIZED = "OpenCV loop, area, images", "OpenCV loop, area, optimized tables, images"


def make_cases(corpus: Path, work: Path, num_timed: int) -> dict[str, Case]:
    """Returns what is measured, by name, in the order of the table."""
    notebook = yardsticks.Notebook(corpus, 2, num_timed, work)
    notebook_all = yardsticks.Notebook(corpus, None, num_timed, work)
    files = builds.distinct_files(ALL, corpus)
    yardsticks.check_codecs(files)
    bank = work / "bank"
    # As many more triplets as it takes for the start of workers not to count.
    many = LandmarkTripletsConfig(name="128px_many", images_per_landmark=None, triplets_per_anchor=6)

    def build(config: str, workers: int | None = None) -> Case:
        return lambda: builds.first_build(config, corpus, work, workers=workers)

    @functools.cache
    def built() -> Any:
        """Returns the train split of a build that leaves all thumbnails in the bank."""
        with temporary_folder(work) as folder:
            return builds.build(many, corpus, folder, bank=bank)[1].info.splits["train"]

    def full_bank() -> Figures:
        built()
        with temporary_folder(work) as folder:
            return builds.build(many, corpus, folder, bank=bank)[0]

    cases: dict[str, Case] = {
        NOTEBOOK: notebook,
        NOTEBOOK_ALL: notebook_all,
        AS_WRITTEN: yardsticks.Notebook(corpus, None, num_timed, work, as_written=True),
        TF_LOOP: lambda: measure_each(yardsticks.make_with_tensorflow, notebook_all.files()),
        PLAIN: lambda: yardsticks.build_plainly(notebook_all.files(), work),
        TWO: build(TWO),
        ALL: build(ALL),
        AREA: build(AREA),
        ONE_WORKER: build(ALL, 1),
        TWO_WORKERS: build(ALL, 2),
        SLOW: lambda: builds.first_build(ALL, corpus, work, workers=SLOW_WORKERS, readers=1, slow_down=SLOW_S),
        FULL_BANK: full_bank,
        CONSTANT: lambda: yardsticks.build_constant(built().num_examples, built().num_bytes, work),
        CODEC_LOOP: yardsticks.OnAllCores(yardsticks.run_codec, files),
        AREA_LOOP: yardsticks.OnAllCores(yardsticks.run_package, files),
        OPENCV: yardsticks.OnAllCores(yardsticks.run_opencv, files),
        OPENCV_OPTIMIZED: yardsticks.OnAllCores(functools.partial(yardsticks.run_opencv, optimize=True), files),
    }
    if loky.cpu_count() == 2:
        del cases[TWO_WORKERS]  # that is the default there
    return cases


def make_ratios(results: Results, distinct: Mapping[str, float]) -> list[tuple[str, list[float], str]]:
    """Returns the project's ratios with their targets; ``distinct`` is of images per triplet, by config."""
    speed = functools.partial(ratio, results, "a second")
    cpu = functools.partial(ratio, results, "CPU s")

    def share_of_bound(run: Figures) -> float:
        """Returns the speed, of what CPU time and number of workers allow."""
        each_s = run["CPU s"] / run["number"]
        allowed: float = min(SLOW_WORKERS / (SLOW_S + each_s), loky.cpu_count() / each_s)
        return run["a second"] / allowed

    two_workers = TWO_WORKERS if TWO_WORKERS in results else ALL
    return [
        ("notebook, all / bare loop of its calls", speed(NOTEBOOK_ALL, TF_LOOP, 3), ">= 0.85"),
        ("128px_all / notebook, all", speed(ALL, NOTEBOOK_ALL), ""),
        ("128px / notebook", speed(TWO, NOTEBOOK), ""),
        ("128px_area_all / notebook, all", speed(AREA, NOTEBOOK_ALL), ""),
        ("128px_all / notebook, all, as written", speed(ALL, AS_WRITTEN), ""),
        ("128px_area_all / notebook, all, as written", speed(AREA, AS_WRITTEN), ""),
        ("128px_all / plain TFDS builder", speed(ALL, PLAIN), ""),
        ("128px_all / codec loop", speed(ALL, CODEC_LOOP, distinct[ALL]), ">= 0.85"),
        ("128px / codec loop", speed(TWO, CODEC_LOOP, distinct[TWO]), ">= 0.85"),
        ("128px_area_all / make_thumbnail, area", speed(AREA, AREA_LOOP, distinct[ALL]), ">= 0.85"),
        ("CPU of 128px_all / of the codec loop", cpu(ALL, CODEC_LOOP), "<= 1.15"),
        ("CPU of 128px_area_all / of the OpenCV loop", cpu(AREA, OPENCV), ""),
        ("CPU of 128px_area_all / of that with optimized tables", cpu(AREA, OPENCV_OPTIMIZED), ""),
        ("wall time with 2 workers / with 1", speed(ONE_WORKER, two_workers), "<= 0.60"),
        (f"{SLOW} / what that allows", [share_of_bound(run) for run in results.get(SLOW, ())], ">= 0.85"),
        ("full bank / TFDS's writer, constant records", speed(FULL_BANK, CONSTANT), ">= 1.6"),
    ]


def main() -> None:
    """Prints the table."""
    program = Program(__doc__)
    add = program.parser.add_argument
    timed = "triplets that the notebook's procedure and the plain builder make (default: %(default)s)"
    add("--notebook-triplets", type=int, default=300, metavar="N", help=timed)
    add("--only", action="append", metavar="CASE", help="measure this case only (can be repeated)")
    with program:
        args, corpus = program.args, program.corpus
        cases = make_cases(corpus, program.work, args.notebook_triplets)
        if unknown := set(args.only or ()) - set(cases):
            program.parser.error(f"no such case: {', '.join(sorted(unknown))}")
        distinct = {}
        for config in (TWO, ALL):
            num_triplets = len(builds.plan(config, corpus)[1])
            distinct[config] = len(builds.distinct_files(config, corpus)) / num_triplets
            print(f"{config}: {distinct[config]:.2f} distinct images per triplet")
        results = program.alternate({name: cases[name] for name in args.only or cases})
        print_figures("triplets, or images where it says so", results, make_ratios(results, distinct))


if __name__ == "__main__":
    main()
