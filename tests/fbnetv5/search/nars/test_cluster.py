"""Ray is not a dependency of the tests: a cluster of one machine is tried by hand."""

import importlib.util

import pytest

from export.errors import UnavailableError
from fbnetv5.search.nars.cluster import on_cluster
from tests.fbnetv5.search.nars.conftest import silent

HAS_RAY = importlib.util.find_spec("ray") is not None


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_without_ray_the_error_names_its_package() -> None:
    with pytest.raises(UnavailableError, match=r"pip install 'fbnetv5\[ray\]'"):
        on_cluster("auto", 0.0, silent)


@pytest.mark.skipif(not HAS_RAY, reason="needs Ray")
def test_without_a_cluster_the_error_says_how_to_start_one() -> None:
    with pytest.raises(UnavailableError, match=r"no Ray cluster answers at '127\.0\.0\.1:1'.*ray start --head"):
        on_cluster("127.0.0.1:1", 0.0, silent)
