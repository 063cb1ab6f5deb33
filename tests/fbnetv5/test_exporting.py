import pytest

from fbnetv5.cost import Resolution
from fbnetv5.exporting import engine_shapes


@pytest.mark.parametrize(
    ("deployed", "measured", "smallest", "largest"),
    [
        ((224, 224), (64, 64), (64, 64), (224, 224)),
        ((320, 640), (512, 512), (320, 512), (512, 640)),
        ((64, 64), (64, 64), (64, 64), (64, 64)),
    ],
)
def test_an_engine_takes_all_between_what_was_measured_and_what_is_deployed(
    deployed: Resolution, measured: Resolution, smallest: Resolution, largest: Resolution
) -> None:
    shapes = engine_shapes(deployed, measured)
    assert shapes.smallest == (1, 3, *smallest)
    assert shapes.typical == (1, 3, *deployed)
    assert shapes.largest == (8, 3, *largest)
