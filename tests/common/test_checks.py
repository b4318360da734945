import math
import re

import numpy as np
import pytest

from landmark_triplets_tfds.common.checks import (
    check_bool,
    check_choice,
    check_int,
    check_number,
    check_word,
    list_some,
    shorten,
)


@pytest.mark.parametrize("value", [1, 9, np.int32(9), np.uint64(1)])
def test_check_int_returns_a_plain_int(value):
    checked = check_int("x", value, 1, 9)
    assert checked == value
    assert type(checked) is int


@pytest.mark.parametrize("value", [0, 10, True, 1.0, np.float32(1), "1", None, [1]])
def test_check_int_refuses(value):
    with pytest.raises(ValueError, match=re.escape(f"x must be a whole number between 1 and 9 px, got {value!r}.")):
        check_int("x", value, 1, 9, "px")


def test_large_limits_are_named_as_powers():
    with pytest.raises(ValueError, match=r"between 1 and 2\*\*31 - 1 \(or None\), got 0\."):
        check_int("x", 0, 1, 2**31 - 1, "(or None)")


@pytest.mark.parametrize("value", [0, 2**64 - 1, np.uint64(2**64 - 1)])
def test_check_word(value):
    assert check_word("seed", value) == int(value)


@pytest.mark.parametrize("value", [-1, 2**64, 0.5, False])
def test_check_word_refuses(value):
    with pytest.raises(ValueError, match=r"seed must be a whole number between 0 and 2\*\*64 - 1, got"):
        check_word("seed", value)


@pytest.mark.parametrize("value", [0, 0.5, 99, np.float64(1.5), np.int8(3)])
def test_check_number(value):
    assert check_number("share", value, 0, 99) == value


@pytest.mark.parametrize("value", [-0.1, 99.5, math.nan, math.inf, "1", None, True])
def test_check_number_refuses(value):
    with pytest.raises(ValueError, match=re.escape(f"share must be a number between 0 and 99, got {value!r}.")):
        check_number("share", value, 0, 99)


def test_check_choice():
    check_choice("fit", "crop", ("squash", "crop"))
    with pytest.raises(ValueError, match=r"fit must be one of 'squash', 'crop', got 'pad'\."):
        check_choice("fit", "pad", ("squash", "crop"))


@pytest.mark.parametrize("value", [1, 0, None, "yes"])
def test_check_bool(value):
    check_bool("shuffle", True)
    with pytest.raises(ValueError, match=re.escape(f"shuffle must be True or False, got {value!r}.")):
        check_bool("shuffle", value)


@pytest.mark.parametrize(("count", "text"), [(0, ""), (1, "0"), (2, "0, 1"), (3, "0, 1, ..."), (9, "0, 1, ...")])
def test_list_some(count, text):
    assert list_some([str(number) for number in range(count)], 2) == text


def test_shorten():
    assert shorten("a") == "'a'"
    assert len(shorten("a" * 1000)) == 80
