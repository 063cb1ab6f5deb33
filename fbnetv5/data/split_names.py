"""The names of splits: which words mean training, and which the validation or test split."""

import re
from collections.abc import Collection, Sized

TRAINING = ("train", "training")
VALIDATION = ("val", "valid", "validation", "test", "testing")
WORDS = re.compile(r"[a-z]+")


def is_validation(name: str) -> bool:
    """Whether a word of a split's name starts with one for a validation split, and none with "train": "my_val2017"."""
    words = WORDS.findall(name.lower())
    return any(word.startswith(VALIDATION) for word in words) and not any(word.startswith(TRAINING) for word in words)


def has_split_word(name: str) -> bool:
    """Whether a word of a name starts with one for a split."""
    return any(word.startswith((*TRAINING, *VALIDATION)) for word in WORDS.findall(name.lower()))


def as_test_split(test: Collection[str], images: Sized) -> frozenset[str]:
    """The test split; empty if it contains all images, which are then divided like any folder."""
    return frozenset(test) if len(test) < len(images) else frozenset()
