"""Things in a file system that are no files: read, they would be waited for, or have no end."""

from __future__ import annotations

from collections.abc import Callable
import os
import pathlib
import stat

SPECIAL_FILES: dict[str, Callable[[pathlib.Path], None]] = {
    "a pipe": os.mkfifo,
    "a socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
    "a link to a pipe": lambda path: _link_to_pipe(path),
    "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "a link to /dev/urandom": lambda path: path.symlink_to("/dev/urandom"),
}


def _link_to_pipe(path: pathlib.Path) -> None:
    target = path.with_name(f".{path.name}.pipe")
    os.mkfifo(target)
    path.symlink_to(target)
