"""What can be wrong, as exception types: one base class, and a subclass for each domain.

They live in one leaf module so that the module that finds a problem and the one that decides what it means need not
import each other. Each message says what was found, what was expected and how to mend it. Where Python has a type that
fits, an error is of that type too, so that code which knows nothing of this package can catch it.
"""

import collections.abc


class LandmarkTripletsError(Exception):
    """Base of all errors of this package whose message is meant for users."""


# --- The competition's files


class InputFileError(LandmarkTripletsError, OSError):
    """What should be read is no regular file, such as a pipe, or larger than such a file can be."""


class LandmarkTableError(LandmarkTripletsError, ValueError):
    """The table of images (``train.csv``) cannot be used; the message names file, line and value."""


class SourceLayoutError(LandmarkTripletsError, FileNotFoundError):
    """The folder given as ``manual_dir`` does not hold the competition's files."""


class ArchiveError(SourceLayoutError):
    """A zip or tar with the images cannot be used as a whole; the message names it and says how to mend it."""


# --- What is built from them


class TripletsFileError(LandmarkTripletsError, ValueError):
    """The file of triplets cannot be used; the message names file, line or row, and value."""


class NoExampleError(LandmarkTripletsError, ValueError):
    """There is nothing to make examples of: no triplet can be drawn, or a split would be empty."""


class MissingImagesError(LandmarkTripletsError, FileNotFoundError):
    """So many of the images in the table have no file that this is a partial copy of the competition."""


class TooManyUnreadableError(LandmarkTripletsError, RuntimeError):
    """More images turned out unreadable than the build option ``max_unreadable`` allows."""


class NoSpaceError(LandmarkTripletsError, OSError):
    """A disk, a quota or a limit of file sizes is used up; the message says which."""


class WorkerKilledError(LandmarkTripletsError, RuntimeError):
    """Worker processes were killed again and again, as where there is too little memory."""


class DamagedFileError(LandmarkTripletsError, ValueError):
    """A file that the package wrote for itself, and can make again, is not as it was written; the message names it."""


class PreparedDataMismatchError(LandmarkTripletsError, ValueError):
    """Data prepared earlier under this name was made from other fields, another table or another cap."""


# --- What is read from a prepared dataset, and mined from it


class PreparedDataError(LandmarkTripletsError, ValueError):
    """A file beside the shards of a prepared dataset is damaged; the message names it."""


class ImageIndexError(LandmarkTripletsError, ValueError):
    """The index of a dataset of single images is missing or wrong; the message names the file."""


class ForkedReaderError(LandmarkTripletsError, RuntimeError):
    """A forked process reads records after the one it was forked from did."""


class EmbeddingsError(LandmarkTripletsError, ValueError):
    """Embeddings or the ids of their images cannot be used; the message names file, row and image."""


class SolutionError(LandmarkTripletsError, ValueError):
    """A solution file of the benchmark cannot be used; the message names line and value."""


class MissingPackageError(LandmarkTripletsError, ImportError):
    """A package that is needed for this alone is not installed; the message says how to get it."""


class CommandError(LandmarkTripletsError, ValueError):
    """What a command was given does not fit; the message says how to mend it."""


# --- One image


class UnreadableImageError(LandmarkTripletsError):
    """One image has no readable pixels.

    The build goes on without the image; it is counted under ``reason`` and listed with ``detail``.

    Attributes:
      reason: one of the few fixed texts below, so that counts by reason stay readable.
      detail: what exactly was found in this file, or ''.
    """

    MISSING = "missing"
    EMPTY = "empty file"
    NOT_AN_IMAGE = "not a JPEG, PNG or GIF file"
    TOO_LARGE = "too many pixels"
    FILE_TOO_LARGE = "file too large"
    DAMAGED = "damaged or truncated"
    UNSUPPORTED = "unsupported kind of image"
    NO_ACCESS = "cannot be read from disk"
    NO_MEMORY = "too little memory to decode it"

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail

    def without_traceback(self) -> "UnreadableImageError":
        """Returns an equal error to keep: a traceback keeps the image's bytes and pixels in memory."""
        return UnreadableImageError(self.reason, self.detail)

    def __reduce__(self) -> tuple[type["UnreadableImageError"], tuple[str, str]]:
        """Keeps both parts when the error crosses a process boundary."""
        return type(self), (self.reason, self.detail)


def advise_on_unreadable(reasons: collections.abc.Collection[str]) -> str:
    """Returns what to do about images that are unreadable for these reasons."""
    advice = {
        UnreadableImageError.UNSUPPORTED: (
            "Fetching images of an unsupported kind again would not help: convert them to JPEG, or leave them out."
        ),
        UnreadableImageError.NO_MEMORY: "Fewer workers leave more memory for each (LANDMARK_TRIPLETS_WORKERS).",
    }
    others = ["Fetch these files again."] if set(reasons) - set(advice) else []
    return " ".join(others + [advice[reason] for reason in advice if reason in reasons])
