"""What lies in a file's place when fetching it went wrong in one of the usual ways."""

from __future__ import annotations

HTML_PAGE = "HTML page"
LFS_POINTER = "Git LFS pointer"

ADVICE = {
    HTML_PAGE: "A server's error or login page was saved in its place. Fetch the file again.",
    LFS_POINTER: "It only says which file should be here. To get that: git lfs pull",
}


def stand_in(content: bytes) -> str | None:
    """Returns `HTML_PAGE` or `LFS_POINTER` if that is what a file begins with; None otherwise."""
    if content.startswith(b"version https://git-lfs"):
        return LFS_POINTER
    return HTML_PAGE if content[:64].lstrip()[:1] == b"<" else None
