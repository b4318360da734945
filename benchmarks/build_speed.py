"""How fast datasets are built: the one command behind the project's table.

Everything is measured in turns on the same files, in this process, after imports, with the files in the page cache;
every build goes to a new folder and, but for the case named so, starts with an empty bank of thumbnails. The notebook's
procedure and the plain TFDS builder make part of the triplets, evenly spread over all: their time goes triplet by
triplet, and planning is added in proportion.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
import contextlib
import functools
from pathlib import Path

import loky

from benchmarks import builds, codec_loop, naive_builder, report
from benchmarks.corpus import add_corpus_arguments, open_corpus
from benchmarks.harness import Case, Measurement, NotAvailableError, Results, add_common_arguments, alternate
from benchmarks.notebook import Notebook, bare_loop

NOTEBOOK, NOTEBOOK_ALL, TF_LOOP = "notebook", "notebook, all", "bare TensorFlow loop"
PLAIN = "plain TFDS builder"
TWO, ALL, AREA = "128px", "128px_all", "128px_area_all"
ONE_WORKER, TWO_WORKERS = "128px_all, 1 worker", "128px_all, 2 workers"
FULL_BANK, CONSTANT = "128px_all, full bank", "constant records"
CODEC_LOOP, AREA_LOOP = "codec loop", "make_thumbnail, area"

_COUNTED = dict.fromkeys((TF_LOOP, CODEC_LOOP, AREA_LOOP), "images")


class FullBank:
    """Builds `128px_all` when all its thumbnails are in the bank already."""

    def __init__(self, corpus: Path, folder: Path, work: Path | None):
        self._corpus = corpus
        self._bank = folder / "bank"
        self._work = work

    def __call__(self) -> Measurement:
        if not builds.has_bank():
            raise NotAvailableError("the installed package has no bank of thumbnails")
        with builds.temporary_folder(self._work) as folder:
            if not self._bank.exists():
                builds.build(ALL, self._corpus, folder / "first", bank=self._bank)
            return builds.build(ALL, self._corpus, folder / "data", bank=self._bank)[0]


class Constant:
    """Lets TFDS's own writer write as many records of the same size as `128px_all` has."""

    def __init__(self, corpus: Path, work: Path | None):
        self._corpus = corpus
        self._work = work
        self._size: tuple[int, int] | None = None

    def __call__(self) -> Measurement:
        if self._size is None:
            with builds.temporary_folder(self._work) as folder:
                _, builder = builds.build(ALL, self._corpus, folder)
            split = builder.info.splits["train"]
            self._size = split.num_examples, split.num_bytes
        return naive_builder.build_constant(*self._size, self._work)


def make_cases(corpus: Path, folder: Path, args: argparse.Namespace) -> dict[str, Case]:
    """Returns what is measured, by name, in the order of the table."""
    notebook = Notebook(corpus, 2, args.notebook_triplets, args.work)
    notebook_all = Notebook(corpus, None, args.notebook_triplets, args.work)
    files = builds.distinct_files(ALL, corpus)
    codec_loop.check(files)

    def build(config: str, workers: int | None = None) -> Case:
        return lambda: builds.timed_build(config, corpus, args.work, workers=workers)

    cases: dict[str, Case] = {
        NOTEBOOK: notebook,
        NOTEBOOK_ALL: notebook_all,
        TF_LOOP: lambda: bare_loop(notebook_all.files()),
        PLAIN: lambda: naive_builder.build_naive(notebook_all.files(), args.work),
        TWO: build(TWO),
        ALL: build(ALL),
        AREA: build(AREA),
        ONE_WORKER: build(ALL, 1),
        TWO_WORKERS: build(ALL, 2),
        FULL_BANK: FullBank(corpus, folder, args.work),
        CONSTANT: Constant(corpus, args.work),
        CODEC_LOOP: lambda: codec_loop.run(files),
        AREA_LOOP: lambda: codec_loop.run_package(files, "area"),
    }
    if loky.cpu_count() == 2:
        del cases[TWO_WORKERS]  # that is the default there
    return {name: case for name, case in cases.items() if not args.only or name in args.only}


def make_ratios(results: Results, distinct: Mapping[str, float]) -> list[report.Ratio]:
    """Returns the project's ratios, as far as their cases were measured.

    Args:
      results: of the cases.
      distinct: distinct images per triplet, by config. With them, the ceiling of the speed-up: what the codec loop
        alone would reach on all cores.
    """
    ratio = functools.partial(report.ratio, results)
    two_workers = TWO_WORKERS if TWO_WORKERS in results.measurements else ALL
    ceiling = "ceiling of that: codec loop, times cores"
    cores = loky.cpu_count()
    return [
        *ratio("notebook, all / bare loop of its calls", NOTEBOOK_ALL, TF_LOOP, "per_second", at_least=0.85, factor=3),
        *ratio("128px_all / notebook, all", ALL, NOTEBOOK_ALL, "per_second", at_least=15),
        *ratio(ceiling, CODEC_LOOP, NOTEBOOK_ALL, "per_second", factor=cores / distinct[ALL]),
        *ratio("128px / notebook", TWO, NOTEBOOK, "per_second", at_least=9),
        *ratio(ceiling, CODEC_LOOP, NOTEBOOK, "per_second", factor=cores / distinct[TWO]),
        *ratio("128px_area_all / notebook, all", AREA, NOTEBOOK_ALL, "per_second", at_least=25),
        *ratio("ceiling of that: one thread, times cores", AREA_LOOP, NOTEBOOK_ALL, "per_second", factor=cores),
        *ratio("128px_all / plain TFDS builder", ALL, PLAIN, "per_second"),
        *ratio("CPU of 128px_all / of the codec loop", ALL, CODEC_LOOP, "cpu_s", at_most=1.25),
        *ratio("wall time with 2 workers / with 1", two_workers, ONE_WORKER, "wall_s", at_most=0.60),
        *ratio("full bank / TFDS's writer, constant records", FULL_BANK, CONSTANT, "per_second", at_least=0.75),
    ]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_corpus_arguments(parser)
    add_common_arguments(parser)
    parser.add_argument(
        "--notebook-triplets",
        type=int,
        default=300,
        metavar="N",
        help="triplets that the notebook's procedure and the plain builder make (default: %(default)s)",
    )
    parser.add_argument("--only", action="append", metavar="CASE", help="measure this case only (can be repeated)")
    args = parser.parse_args()
    machine = report.describe_machine()
    with contextlib.ExitStack() as stack:
        corpus = stack.enter_context(open_corpus(args))
        folder = stack.enter_context(builds.temporary_folder(args.work))
        num_images, num_bytes = builds.read_all(corpus)
        cases = make_cases(corpus, folder, args)
        unknown = set(args.only or ()) - set(cases)
        if unknown:
            parser.error(f"no such case: {', '.join(sorted(unknown))}")
        results = alternate(cases, args.runs)
        distinct = {}
        for config in (TWO, ALL):
            num_triplets = len(builds.plan(config, corpus)[1])
            distinct[config] = len(builds.distinct_files(config, corpus)) / num_triplets

    report.print_machine(machine)
    print(
        f"{num_images:,} images of {num_bytes / num_images / 1000:.0f} kB; distinct images per triplet:"
        f" {', '.join(f'{ratio:.2f} in {config}' for config, ratio in distinct.items())}; median of {args.runs} runs"
    )
    report.print_measurements(results, {name: _COUNTED.get(name, "triplets") for name in cases})
    ratios = make_ratios(results, distinct)
    report.print_ratios(ratios)
    print("\nThe targets are for 2 cores with nothing else running, and photographs.")
    corpus_facts = {"num_images": num_images, "num_bytes": num_bytes, "distinct_images_per_triplet": distinct}
    report.write_json(args.json, "build_speed", machine=machine, corpus=corpus_facts, results=results, ratios=ratios)


if __name__ == "__main__":
    main()
