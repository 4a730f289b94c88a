"""The error tree."""

from __future__ import annotations

import pickle

import pytest

from inrformat import errors

CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_is_the_same_in_another_process(kind):
    """A worker's reaches its parent pickled."""
    if issubclass(kind, errors.FormatError):
        made = kind("bad-index", "no such brick", section="BRIX", offset=7)
    else:
        made = kind("what is wrong")
    again = pickle.loads(pickle.dumps(made))
    assert type(again) is kind and str(again) == str(made) and vars(again) == vars(made)
