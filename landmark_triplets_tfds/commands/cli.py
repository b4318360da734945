"""The command `landmark-triplets`: the arguments of its commands, and what becomes of their errors.

Commands look before a build (`inspect`, `forecast`, `preview`) and after it (`preview`, `verify`), `mine` chooses
triplets for the next one, and `evaluate` scores a model. The arguments of all of them are here, so that `--help` is
there at once: the module of a command, and what it needs, is imported when it runs. Names are written with underscores,
as TFDS's are; hyphens do as well.

The exit status is 0 if all is well, 1 if a command found something wrong, and 2 if it could not do its work, which
standard error then explains.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
import functools
import importlib
import importlib.metadata
import inspect
import os
import re
import shutil
import signal
import sys
from typing import Any, NoReturn

from absl import logging as absl_logging
from etils import epath

from landmark_triplets_tfds.commands.console import FAILED, OK
from landmark_triplets_tfds.common.checks import MAX_WORD, check_int
from landmark_triplets_tfds.common.progress import UnfailingStream, saying_on_stderr
from landmark_triplets_tfds.errors import LandmarkTripletsError
from landmark_triplets_tfds.triplets.draws import TRAIN
from landmark_triplets_tfds.triplets.examples import KINDS

PROGRAM = "landmark-triplets"
_DISTRIBUTION = "landmark_triplets_tfds"
_DESCRIPTION = "Looks at the files of a landmark competition before a dataset is built, and at the dataset after it."

_MAX_WIDTH = 100
_INTEGER_PATTERN = re.compile(r"[+-]?[0-9]+")
_HYPHENS_PATTERN = re.compile(r"(--[a-z]+(?:-[a-z]+)+)(=.*)?", re.DOTALL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit status."""
    # What TensorFlow says of its devices, and TFDS of configs, is of no use here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    absl_logging.set_verbosity(absl_logging.ERROR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None or getattr(sys, name).closed:  # as after `>&-`
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for as long as the process lives
    try:
        status = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()  # now, where a reader that is gone is no surprise
        return status
    except BrokenPipeError:  # as in `landmark-triplets ... | head`
        status, message = 128 + 13, ""  # as shells report SIGPIPE, which Windows has no name for
    except KeyboardInterrupt:
        status, message = 128 + signal.SIGINT, f"{PROGRAM}: interrupted\n"
    except (LandmarkTripletsError, OSError) as error:
        status, message = FAILED, f"{PROGRAM}: {error}\n"
    UnfailingStream(sys.stderr).write(message)
    UnfailingStream(sys.stdout).flush()  # what has nowhere to go has none when the process ends either
    return status


def _run(words: Sequence[str]) -> int:
    parser = _make_parser()
    try:
        arguments = parser.parse_args([_with_underscores(word) for word in words])
    except SystemExit as end:  # after --help, or where arguments do not fit
        return int(end.code or OK)
    if arguments.command is None:
        parser.print_help()
        return OK
    module = importlib.import_module(f"landmark_triplets_tfds.commands.{arguments.command}")
    with saying_on_stderr():
        status: int = module.run(arguments)
    return status


def _with_underscores(word: str) -> str:
    """Returns ``--manual_dir`` for ``--manual-dir``, and so on; other words as they are."""
    match = _HYPHENS_PATTERN.fullmatch(word)
    return "--" + match[1][2:].replace("-", "_") + (match[2] or "") if match else word


# --- The arguments

_MANUAL_DIR = "Folder with the competition's files: extracted, as zip, or as tars."
_DATA_DIR = "Folder that the dataset was built into (default: ~/tensorflow_datasets)."


def _make_parser() -> _Parser:
    parser = _Parser(prog=PROGRAM, description=_DESCRIPTION)
    parser.add_argument(
        "--version", action="version", version=f"{PROGRAM} {_version()}", help="Show the version and exit."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for name, add_arguments in COMMANDS.items():
        text = inspect.getdoc(add_arguments) or ""
        command = commands.add_parser(name, help=text.partition("\n")[0], description=text)
        add = functools.partial(_add, command)
        add_arguments(add)
        text = "Print one JSON object instead of text (docs/commands.md says what is in it)."
        add("--json", "", text, action="store_true")
    return parser


def _version() -> str:
    try:
        return importlib.metadata.version(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


_Add = Callable[..., None]  # `_add` once its parser is known


def _add(parser: argparse.ArgumentParser, name: str, metavar: str, text: str, **settings: Any) -> None:
    """Adds an argument; its help says the default. One without a value has no ``metavar``."""
    if metavar:
        settings["metavar"] = metavar
    if settings.get("default") is not None:
        text = f"{text.removesuffix('.')} (default: %(default)s)."
    parser.add_argument(name, help=text, **settings)


def _path(text: str) -> epath.Path:
    return epath.Path(text).expanduser()


def _whole(lowest: int = 0, highest: int = MAX_WORD) -> Callable[[str], int]:
    """Returns what makes a whole number in a range of a text."""

    def parse(text: str) -> int:
        try:
            return check_int("it", int(text) if _INTEGER_PATTERN.fullmatch(text) else text, lowest, highest)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def _add_inspect(add: _Add) -> None:
    """Tell whether a copy of the competition is usable.

    Looks at the kind of copy, at the table of images, at which files are
    missing, and at a random sample of the images, of which it makes
    thumbnails as a build does. Says of each problem what to do about it.

    Exit status: 0 if a dataset can be built from it, 1 if not, 2 if it could
    not be looked at.

    Example:
      landmark-triplets inspect --manual_dir ~/landmarks
    """
    add("--manual_dir", "DIR", _MANUAL_DIR, type=_path, required=True)
    add("--images", "N", "Images to look at; 0: none.", type=_whole(), default=1000)
    add("--seed", "N", "Of the random sample.", type=_whole(), default=0)


def _add_forecast(add: _Add) -> None:
    """Tell what a build will make and take, and what fits a budget.

    Plans the dataset, which gives exact numbers of examples and images, and
    builds a random sample of the images for trial, in a temporary folder:
    bytes and CPU time come from that.

    Exit status: 0; 1 if nothing fits the budget; 2 if nothing could be forecast.

    Examples:
      landmark-triplets forecast --manual_dir D
      landmark-triplets forecast --manual_dir D --config 64px landmark_images/64px_all
      landmark-triplets forecast --manual_dir D --config '{"name": "a", "resolution": 160}'
      landmark-triplets forecast --manual_dir D --budget 4.9GB
    """
    datasets = [kind.dataset for kind in KINDS]
    add("--manual_dir", "DIR", _MANUAL_DIR, type=_path, required=True)
    text = "Configs to forecast: names, or JSON as tfds build takes it (default: some useful ones)."
    add("--config", "CONFIG", text, nargs="+", action="extend")
    text = f"Dataset of the configs that do not name one: {' or '.join(datasets)}."
    add("--dataset", "NAME", text, choices=datasets, default=datasets[0])
    add("--budget", "SIZE", "Bytes that the dataset may take, such as 4.9GB, 500MB or 20GiB: find what fits.")
    add("--images", "N", "Images to build for trial, per config.", type=_whole(lowest=10), default=1000)
    add("--seed", "N", "Of the random sample.", type=_whole(), default=0)


def _add_preview(add: _Add) -> None:
    r"""Draw a picture of some examples, built or planned.

    Triplets are shown in rows of anchor, positive and negative, single images in rows of one landmark each. With
    --manual_dir, the picture shows what a build would make, before it is built.

    Examples:
      landmark-triplets preview --data_dir ~/tfds landmark_triplets/128px
      landmark-triplets preview --manual_dir ~/landmarks landmark_triplets/128px_area
      landmark-triplets preview --manual_dir ~/landmarks landmark_triplets \
        --config '{"name": "96px_crop", "resolution": 96, "fit": "crop"}'
    """
    text = "landmark_triplets/128px or landmark_images/128px_all; of a built one also its version or folder, as"
    add("dataset", "DATASET", f"{text} verify takes it.")
    add("--data_dir", "DIR", _DATA_DIR)
    text = "Folder with the competition's files: show what a build would make of them."
    add("--manual_dir", "DIR", text, type=_path)
    text = (
        "With --manual_dir: the name of a config or the fields of your own in JSON, as `tfds build --config` takes it."
    )
    add("--config", "JSON", text)
    add("--split", "SPLIT", "Split to choose from.", default=TRAIN)
    add("--num", "N", "Rows.", type=_whole(1, 100), default=6)
    add("--seed", "N", "Of the random choice; another one shows other examples.", type=_whole(), default=0)
    add("--out", "FILE", "File to write, .png, .jpg or .webp (default: triplets.png or images.png, here).")


def _add_verify(add: _Add) -> None:
    """Check a built dataset, record by record.

    Reads every record: its checksum, its features, its images, the rules of triplets, and whether records, counts and
    recorded fields fit together. With --manual_dir, also against the competition's files: ids and landmarks, whether
    every planned record is there or accounted for, and a sample of images made again. Prints the sha256 of each shard
    as `sha256sum` does.

    Examples:
      landmark-triplets verify --data_dir ~/tfds landmark_triplets/128px
      landmark-triplets verify --data_dir ~/tfds landmark_triplets/128px --manual_dir ~/landmarks
      landmark-triplets verify ~/tfds/landmark_triplets/128px/1.0.0 --sha256 published.txt
    """
    text = "landmark_triplets/128px (its newest version), landmark_triplets/128px:1.0.0, or the folder of a version."
    add("dataset", "DATASET", text)
    add("--data_dir", "DIR", _DATA_DIR)
    text = "Folder with the competition's files, to compare with (default: none)."
    add("--manual_dir", "DIR", text, type=_path)
    text = "With --manual_dir: the list that the config named, if it has one; the dataset records its hash alone."
    add("--exclude_landmarks", "FILE", text)
    add("--sample", "N", "Images made again with --manual_dir.", type=_whole(), default=500)
    add("--seed", "N", "Of the choice of these.", type=_whole(), default=0)
    text = "List of sha256 hashes to compare with, as `sha256sum` or this command prints it."
    add("--sha256", "FILE", text, type=_path)
    add("--workers", "N", "Processes that read (default: one for each usable core).", type=_whole(1, 1024))
    add("--show_all", "", "Show up to 100 problems of each kind, not 5.", action="store_true")


def _add_mine(add: _Add) -> None:
    """Choose hard triplets by a model's embeddings of the images.

    Every image is an anchor once. Its negative is one of the most similar images of other landmarks. The file
    that comes of it is for the field triplets_file of a config of landmark_triplets; docs/triplets.md shows
    the whole round. Similarity is the cosine; embeddings need not have length 1.

    Which image is in which row says --index, where the embeddings are of the records of landmark_images in their
    order, or --ids with --manual_dir.

    Exit status: 0 if triplets were written, 2 if not.

    Examples:
      landmark-triplets mine --embeddings e.npy --index data/landmark_images/128px_all/1.0.0 --out hard.csv
      landmark-triplets mine --embeddings e.npy --ids ids.txt --manual_dir ~/landmarks --out hard.parquet
    """
    text = "A .npy file with float16 or float32, an image per row."
    add("--embeddings", "FILE", text, type=_path, required=True)
    add("--out", "FILE", "File to write: .csv or .parquet.", type=_path, required=True)
    add("--index", "DIR", "Folder of a prepared landmark_images, with index.npz.", type=_path)
    add("--split", "NAME", "Split of --index.", default=TRAIN)
    add("--ids", "FILE", "Ids of the images: a text file, one per line, or .npy with uint64.", type=_path)
    text = "Folder with the competition's files, whose table says which landmark the --ids show."
    add("--manual_dir", "DIR", text, type=_path)
    text = "random: any image of the landmark; hardest: the least similar one."
    add("--positive", "RULE", text, choices=("random", "hardest"), default="random")
    text = "semi-hard: less similar than the positive, by less than the margin; hardest: the most similar."
    add("--negative", "RULE", text, choices=("semi-hard", "hardest"), default="semi-hard")
    add("--neighbours", "K", "Nearest images that negatives are chosen from.", type=_whole(), default=50)
    text = "Images above it are passed over, as near-duplicates."
    add("--max_similarity", "S", text, type=float, default=0.95)
    text = "Of semi-hard negatives, in squared distance; half of it in similarity."
    add("--margin", "M", text, type=float, default=0.2)
    add("--seed", "N", "Of random positives.", type=_whole(), default=0)
    text = "exact, approximate (by faiss), or auto: exact for up to 200,000 images."
    add("--search", "HOW", text, choices=("auto", "exact", "approximate"), default="auto")


def _add_evaluate(add: _Add) -> None:
    """Score embeddings by the public benchmark.

    That of the Google Landmarks Dataset v2, as its papers report it.

    With retrieval_solution_v2.1.csv: mAP@100, and precision and recall, of queries (split test) that search the
    split index. With recognition_solution_v2.1.csv: GAP, each query's landmark being that of its nearest image in
    the split train. Embeddings are of the records of landmark_images, in their order. Queries and images that
    could not be read, and so have none, count as not found.

    Examples:
      landmark-triplets evaluate --solution retrieval_solution_v2.1.csv \
        --index data/landmark_images/128px_glr/1.0.0 --queries test.npy --database index.npy
    """
    text = "A .npy file with float16 or float32, an image per row: of the images that ask."
    add("--queries", "FILE", text, type=_path, required=True)
    add("--database", "FILE", "The same of the images that are searched.", type=_path, required=True)
    add("--index", "DIR", "Folder of the prepared landmark_images, with index.npz.", type=_path, required=True)
    text = "retrieval_solution_v2.1.csv or recognition_solution_v2.1.csv."
    add("--solution", "FILE", text, type=_path, required=True)
    add("--query_split", "NAME", "Split of --queries.", default="test")
    add("--database_split", "NAME", "Split of --database (default: index; for recognition, train).")
    add("--metric", "HOW", "What is near: cosine or euclidean.", choices=("cosine", "euclidean"), default="cosine")
    add("--out", "FILE", "Draw some queries with their first results: .png, .jpg or .webp.")


# In the order of --help. The module of the same name has ``run(arguments)``, which returns the exit status.
COMMANDS = {
    "inspect": _add_inspect,
    "forecast": _add_forecast,
    "preview": _add_preview,
    "verify": _add_verify,
    "mine": _add_mine,
    "evaluate": _add_evaluate,
}


# --- How help looks, and what is said of arguments that do not fit


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of descriptions, fills the terminal up to a limit, and lists commands without a heading."""

    def __init__(self, prog: str, **settings: Any):
        width = min(_MAX_WIDTH, shutil.get_terminal_size().columns - 2)
        super().__init__(prog, **({"max_help_position": 26, "width": width} | settings))

    def _format_action(self, action: argparse.Action) -> str:
        text = super()._format_action(action)
        if isinstance(action, argparse._SubParsersAction):  # its first line is its metavar alone
            return text.partition("\n")[2].replace("\n  ", "\n").removeprefix("  ")
        return text


class _Parser(argparse.ArgumentParser):
    """Takes no abbreviations, which new arguments would make ambiguous, and says where help is."""

    def __init__(self, **settings: Any):
        super().__init__(formatter_class=_HelpFormatter, allow_abbrev=False, add_help=False, **settings)
        self.add_argument("-h", "--help", action="help", help="Show this help and exit.")

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\nTry: {self.prog} --help\n")
