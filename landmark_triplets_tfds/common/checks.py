"""Whether a value is what it must be: one function for each kind of value, with one wording.

`ValueError` and nothing of this package: what a wrong value means, an error in Python code or one of a user at a
command line, is for the caller to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import difflib
import math

import numpy as np

# What a seed or an epoch may be at most: a word that hashes take in.
MAX_WORD = 2**64 - 1


def check_int(name: str, value: object, lowest: int, highest: int, unit: str = "") -> int:
    """Returns a whole number that is in a range, ends included.

    Args:
      name: what messages call it.
      value: an int, or an integer of NumPy's; a bool is none.
      lowest: the lowest that may be.
      highest: the highest that may be.
      unit: such as 'px', or what else is to be said behind the range.

    Raises:
      ValueError: if it is not a whole number, or out of the range.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not lowest <= value <= highest:
        limits = f"{_name_number(lowest)} and {_name_number(highest)}" + (f" {unit}" if unit else "")
        raise ValueError(f"{name} must be a whole number between {limits}, got {value!r}.")
    return int(value)


def check_word(name: str, value: object) -> int:
    """Returns a whole number that hashes can take in, 0 <= value < 2**64: a seed, an epoch.

    Raises:
      ValueError: if it is something else.
    """
    return check_int(name, value, 0, MAX_WORD)


def check_number(name: str, value: object, lowest: float, highest: float) -> float:
    """Returns a number that is in a range, ends included, as Python's int or float.

    Raises:
      ValueError: if it is no number, not finite, or out of the range.
    """
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not lowest <= value <= highest:  # type: ignore[arg-type, operator]
        raise ValueError(f"{name} must be a number between {lowest:g} and {highest:g}, got {value!r}.")
    return value.item() if isinstance(value, np.generic) else value  # type: ignore[return-value]


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raises ValueError unless the value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}.")


def check_bool(name: str, value: object) -> None:
    """Raises ValueError unless the value is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}.")


def shorten(value: object) -> str:
    """Returns a value as messages show it, cut if it is long."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns a sentence, after a space, with the name that may have been meant; '' if none is close."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def list_some(texts: Sequence[str], number: int) -> str:
    """Returns the first of some texts as messages list them, and dots if there are more."""
    return ", ".join(texts[:number]) + (", ..." if len(texts) > number else "")


def _name_number(number: int) -> str:
    exponent = (number + 1).bit_length() - 1
    return f"2**{exponent} - 1" if number + 1 == 1 << exponent and exponent > 30 else str(number)
