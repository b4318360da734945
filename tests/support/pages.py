"""The commands and the code in the project's pages: found, and run in the order of a page as a reader would.

`python tests/support/pages.py docs/configs.md` runs a page in the current folder. Its blocks marked ```bash and
```python are run; a line `<!-- not run: REASON -->` before a block says why one is not. All Python blocks share their
names.

Commands of TFDS and of this package with which a block ends run in this process, which imports TensorFlow once for all.
"""

from __future__ import annotations

import dataclasses
import linecache
import os
import pathlib
import re
import shlex
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]

_FENCE = re.compile(
    r"^(?P<marker> *<!-- not run: (?P<reason>[^\n]+?) -->\n)?(?P<indent> *)```(?P<language>\w*)\n(?P<code>.*?)^ *```$",
    flags=re.MULTILINE | re.DOTALL,
)
# Blocks in these languages are for a reader to type.
RUNNABLE = ("bash", "python")

# The first words of lines that look like something to type.
_COMMANDS = (
    "tfds",
    "landmark-triplets",
    "python",
    "pip",
    "kaggle",
    "curl",
    "!tfds",
    "!pip",
    "gsutil",
    "import",
    "from",
)

# For those two lines, .ci/run itself is the test, in a fresh virtual environment; the rest of the line is run here too.
_INSTALLS = ("pip install . && ", "pip install '.[test]' && pytest")


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
      language: as the page says, '' if it does not.
      code: its lines.
      not_run: why it is not run; None if it is.
    """

    language: str
    code: str
    not_run: str | None

    @property
    def looks_typed(self) -> bool:
        return self.code.split(maxsplit=1)[0] in _COMMANDS if self.code.strip() else False


def find_pages() -> list[str]:
    """Returns the pages of the project that hold something to type."""
    pages = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")), REPOSITORY / "benchmarks/README.md"]
    return [str(page.relative_to(REPOSITORY)) for page in pages if any(b.looks_typed for b in find_blocks(page))]


def find_blocks(page: pathlib.Path) -> list[Block]:
    blocks = []
    for match in _FENCE.finditer(page.read_text()):
        code = re.sub(rf"^{match['indent']}", "", match["code"], flags=re.MULTILINE)
        blocks.append(Block(match["language"], code, match["reason"]))
    return blocks


def run_page(page: pathlib.Path, where_needed: bool = False) -> None:
    """Runs what a page has to run; raises at the first thing that fails.

    Args:
      page: its file.
      where_needed: run also the blocks that are not run because they need something ("needs ...").
    """
    names: dict[str, object] = {"__name__": "__main__"}
    for number, block in enumerate(find_blocks(page)):
        left_out = block.not_run and not (where_needed and block.not_run.startswith("needs "))
        if block.language not in RUNNABLE or left_out:
            continue
        print(f"--- {block.language}\n{block.code}", flush=True)
        if block.language == "python":
            # Libraries that look up the source of a function (Grain and TensorFlow do) find the block and not the page.
            name = f"<{page.name}, block {number}>"
            linecache.cache[name] = (len(block.code), None, block.code.splitlines(keepends=True), name)
            exec(compile(block.code, name, "exec"), names)
        else:
            _run_shell(block.code)


def _run_shell(code: str) -> None:
    for install in _INSTALLS:
        code = code.replace(install, "")
    lines = [line for line in code.replace("\\\n", "").splitlines() if line.strip() and not line.startswith("#")]
    ours: list[str] = []
    while lines and _runs_here(lines[-1]):
        ours.insert(0, lines.pop())
    if lines:
        subprocess.run(["bash", "-euo", "pipefail", "-c", "\n".join(lines)], check=True)
    for command in ours:
        run_here(shlex.split(command))


def _runs_here(command: str) -> bool:
    """Returns whether a command is one of ours without anything that only a shell understands."""
    words = shlex.split(command)
    plain = not re.search(r"[|&;<>`*?]|\$(?!PWD\b)", re.sub(r"'[^']*'", "", command))
    return plain and next((word for word in words if "=" not in word), "") in ("tfds", "landmark-triplets")


def run_here(words: list[str]) -> None:
    """Runs a command of TFDS or of this package in this process."""
    words = [word.replace("$PWD", os.getcwd()) for word in words]
    before = dict(os.environ)
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        os.environ[name] = value
    try:
        _run_tfds(words) if words[0] == "tfds" else _run_ours(words)
    finally:
        os.environ.clear()
        os.environ.update(before)


def _run_tfds(words: list[str]) -> None:
    from absl import flags
    from tensorflow_datasets.scripts.cli import main

    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["tfds"])
    main.main(main._parse_flags(words))


def _run_ours(words: list[str]) -> None:
    from landmark_triplets_tfds.commands import cli

    status = cli.main(words[1:])
    if status:
        raise RuntimeError(f"{shlex.join(words)} ended with status {status}.")


if __name__ == "__main__":
    run_page(pathlib.Path(sys.argv[1]).resolve())
