import numpy as np
from PIL import Image

from export.runners import Array
from fbnetv5.data.predictions import ClassScores, ProbabilityMap, ScoredBoxes, colour
from fbnetv5.deploy.predict.drawing import GAP, draw
from fbnetv5.deploy.predict.predictions import ClassMap, DepthMap, NormalMap, Prediction

GREY = Image.new("RGB", (100, 80), (40, 40, 40))
NAMES = ("cat", "dog")


def changed(drawn: Image.Image) -> Array:
    return np.asarray((np.asarray(drawn) != np.asarray(GREY)).any(2))


def test_boxes_above_the_score_are_drawn_in_the_colour_of_their_class() -> None:
    boxes = ScoredBoxes(
        np.array([[10, 20, 60, 70], [70, 5, 90, 15]], dtype=np.float32), np.array([0.9, 0.2]), np.array([1, 0])
    )
    drawn = draw(GREY, {"det": boxes}, {"det": NAMES}, min_score=0.3)
    pixels = np.asarray(drawn)
    assert tuple(pixels[60, 10]) == tuple(pixels[70, 40]) == colour(2)
    assert not changed(drawn)[45:65, 15:55].any()
    assert not changed(drawn)[:16, 70:].any()
    everything = draw(GREY, {"det": boxes}, {"det": NAMES}, min_score=None)
    assert tuple(np.asarray(everything)[15, 80]) == colour(1)


def test_the_text_of_a_box_is_above_it_if_there_is_room_and_inside_of_it_otherwise() -> None:
    def drawn(y0: int) -> Array:
        boxes = ScoredBoxes(np.array([[10, y0, 90, 70]], dtype=np.float32), np.array([0.9]), np.array([1]))
        return changed(draw(GREY, {"det": boxes}, {"det": NAMES}, min_score=0.3))

    low, high = drawn(30), drawn(4)
    assert low[20:30, 12:40].all(axis=1).any()
    assert not low[32:68, 12:88].any()
    assert high[6:16, 12:40].any()
    assert not high[:4].any()


def test_class_maps_colour_all_but_class_0_and_ignored_pixels() -> None:
    ids = np.zeros((80, 100), dtype=np.uint8)
    ids[40:60, 40:60], ids[70:, 90:] = 1, 255
    mask = changed(draw(GREY, {"seg": ClassMap(ids)}, {"seg": NAMES}, min_score=0.3))
    assert mask[40:60, 40:60].all()
    mask[:20, :40] = False  # the name of the class
    mask[40:60, 40:60] = False
    assert not mask.any()


def test_numbers_become_shades_and_tasks_are_side_by_side() -> None:
    ramp = np.linspace(0, 1, 100, dtype=np.float32)[None].repeat(80, 0)
    predictions: dict[str, Prediction] = {
        "cls": ClassScores(np.array([0.25, 0.75])),
        "saliency": ProbabilityMap(ramp),
        "depth": DepthMap(ramp * 5 + 1),
        "normals": NormalMap(np.stack([np.zeros_like(ramp), np.zeros_like(ramp), np.ones_like(ramp)])),
    }
    drawn = draw(GREY, predictions, dict.fromkeys(predictions, NAMES), min_score=0.3)
    assert drawn.size == (4 * 100 + 3 * GAP, 80)
    pixels = np.asarray(drawn)
    tiles = [pixels[:, start : start + 100] for start in range(0, 432, 100 + GAP)]
    assert (np.diff(tiles[1][0, :, 0].astype(int)) >= 0).all()
    assert tiles[1][0, -1, 0] == 255
    assert (np.diff(tiles[2][0, :, 0].astype(int)) <= 0).all()
    assert tiles[2][0, 0, 0] == 255
    assert (tiles[3] == [128, 128, 255]).all()
    assert changed(draw(GREY, {"cls": predictions["cls"]}, {"cls": NAMES}, min_score=0.3))[:12, :20].any()
