from pathlib import Path

import pytest

from fbnetv5.deploy.report.files import open_run
from fbnetv5.deploy.report.limits import OF_KIND, limits
from fbnetv5.deploy.report.looks import METHODS


def test_every_kind_of_run_has_limits() -> None:
    assert OF_KIND.keys() == METHODS.keys()


def test_limits_follow_from_what_the_run_has(search_run: Path) -> None:
    sentences = limits(open_run(search_run))
    assert any("inherited" in sentence for sentence in sentences)
    assert any("demo scenes" in sentence for sentence in sentences)
    assert not any("latency table" in sentence for sentence in sentences)


@pytest.mark.parametrize("kind", OF_KIND)
def test_limits_are_whole_sentences(kind: str) -> None:
    assert all(sentence[0].isupper() and sentence.endswith(".") for sentence in OF_KIND[kind])
