"""The names of splits: which words mean training, and which the validation or test split."""

import re
from collections.abc import Collection, Sized

TRAINING = ("train", "training")
VALIDATION = ("val", "valid", "validation", "test", "testing")
WORDS = re.compile(r"[a-z]+")
SUFFIXES = "set|split|data|images"
TRAINING_WORD = re.compile(rf"({'|'.join(TRAINING)})({SUFFIXES}|val|valid)?")
"""Also "trainset", "trainval" and the like; not other words that start so, such as "trainers"."""
VALIDATION_WORD = re.compile(rf"({'|'.join(VALIDATION)})({SUFFIXES}|dev)?")
"""Also "valset", "testdev" and the like; not other words that start so, such as "valve"."""


def is_validation(name: str) -> bool:
    """Whether a word of a split's name means a validation split, and none means training: "my_val2017"."""
    words = WORDS.findall(name.lower())
    return any(map(VALIDATION_WORD.fullmatch, words)) and not any(map(TRAINING_WORD.fullmatch, words))


def has_split_word(name: str) -> bool:
    """Whether a word of a name means a split."""
    return any(VALIDATION_WORD.fullmatch(word) or TRAINING_WORD.fullmatch(word) for word in WORDS.findall(name.lower()))


def as_test_split(test: Collection[str], images: Sized) -> frozenset[str]:
    """The test split; empty if it contains all images, which are then divided like any folder."""
    return frozenset(test) if len(test) < len(images) else frozenset()
