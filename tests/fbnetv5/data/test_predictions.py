import colorsys
from itertools import pairwise

from fbnetv5.data.predictions import colour


def test_neighbouring_classes_have_distant_colours() -> None:
    hues = [colorsys.rgb_to_hsv(*(value / 255 for value in colour(number)))[0] for number in range(40)]
    distances = [min(abs(a - b), 1 - abs(a - b)) for a, b in pairwise(hues)]
    assert min(distances) > 0.35
    assert len({colour(number) for number in range(40)}) == 40
