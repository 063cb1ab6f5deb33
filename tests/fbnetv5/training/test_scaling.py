import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from export.errors import UserError
from fbnetv5.architecture import Architecture, load_architecture, make_architecture
from fbnetv5.costs.tables import Counter
from fbnetv5.data.scenes import CLASSES
from fbnetv5.spaces.fbnetv3 import FBNETV3
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.spaces.space import Space
from fbnetv5.spaces.wide import WideSpace
from fbnetv5.training.scaling import (
    COEFFICIENTS,
    describe_scaling,
    largest_width,
    ratios,
    scale,
    scale_size,
)

FILE = Path("/runs/s/det.json")
ORDINARY_MACS = {"e": 860.882e6, "g": 2129.656e6}
"""Of FBNetV3 with ordinary padding; tests/fbnetv5/spaces/test_fbnetv3.py counts them."""


def network(
    task: str = "det", space: Space | None = None, resolution: tuple[int, int] = (224, 224), **provenance: Any
) -> Architecture:
    space = space or FourPathSpace()
    choices = np.random.default_rng(7).integers(2, size=len(space.variables))
    return make_architecture(space, {task: choices}, CLASSES, resolution, provenance=provenance)


def torch_macs(architecture: Architecture) -> int:
    """Multiply-adds of convolutions and linear layers by torch's own counter, which counts each twice."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as mode:
        architecture.build().eval()(torch.empty(1, 3, *architecture.resolution))
    return int(mode.get_total_flops()) // 2


def test_the_coefficients_are_those_of_g_and_e() -> None:
    assert ratios(FBNETV3["e"], FBNETV3["g"]) == COEFFICIENTS
    assert COEFFICIENTS.depth == pytest.approx(36 / 33)
    assert COEFFICIENTS.resolution == pytest.approx(320 / 264)
    assert COEFFICIENTS.cost == pytest.approx(ORDINARY_MACS["g"] / ORDINARY_MACS["e"], rel=0.01)


CASES: dict[str, tuple[str, Any, tuple[int, int], float]] = {
    "classification, half": ("cls", FourPathSpace(variant="a"), (224, 224), 0.5),
    "classification, a quarter more": ("cls", FourPathSpace(variant="a"), (224, 224), 1.25),
    "detection, a quarter": ("det", FourPathSpace(variant="c"), (320, 640), 0.25),
    "segmentation, four times": ("seg", FourPathSpace(variant="f", strict=True), (224, 224), 4.0),
    "small images, twice": ("seg", FourPathSpace(variant="ac"), (64, 64), 2.0),
}


@pytest.mark.parametrize(("task", "space", "resolution", "factor"), CASES.values(), ids=CASES)
def test_multiply_adds_are_just_below_the_target_and_those_of_torch(
    task: str, space: Space, resolution: tuple[int, int], factor: float
) -> None:
    old = network(task, space, resolution)
    target = factor * old.cost.macs
    new = scale(old, FILE, f"{target / 1e6:.6f}M")
    assert 0.96 * target <= new.cost.macs <= target
    count = Counter(new.resolution).graph(new.graph, new.make_tasks())
    assert torch_macs(new) == count.macs_conv == new.cost.macs - count.macs_pool
    assert new.classes == old.classes


def test_depth_width_and_resolution_grow_together_as_from_e_to_g() -> None:
    old = network("cls", FourPathSpace(variant="c"), (256, 256))
    new = scale(old, FILE, f"{COEFFICIENTS.cost * old.cost.macs / 1e6:.3f}M")
    before, after = new.provenance["scaled_from"]["blocks"]
    assert new.resolution == (320, 320)  # 1.21 times 256 is 310
    assert after / before == pytest.approx(COEFFICIENTS.depth, abs=1.5 / before)
    assert new.provenance["scaled_from"]["width"] == pytest.approx(COEFFICIENTS.width, rel=0.06)


def test_a_named_resolution_holds() -> None:
    old = network(resolution=(224, 224))
    new = scale(old, FILE, "100M@96x160")
    assert new.resolution == (96, 160)
    assert 95e6 < new.cost.macs <= 100e6


def test_the_file_is_complete_and_images_are_scaled_like_the_network(tmp_path: Path) -> None:
    old = network(resolution=(224, 224), trained_at=[224, 224], fit="letterbox", score=0.3)
    new = scale(old, FILE, f"{old.cost.macs / 3e6:.3f}M")
    new.save(tmp_path / "det.json")
    assert load_architecture(tmp_path / "det.json") == new
    assert new.provenance["trained_at"] == list(new.resolution) == [192, 192]
    assert new.provenance["fit"] == "letterbox"
    assert "score" not in new.provenance
    origin = new.provenance["scaled_from"]
    assert (origin["file"], origin["macs"]) == (str(FILE), old.cost.macs)
    line = describe_scaling(old, new)
    assert line.startswith(f"det scaled from variant a: {origin['blocks'][0]} to {origin['blocks'][1]} blocks")
    assert f"224x224 to 192x192: {new.cost.macs / 1e6:.1f}M multiply-adds" in line


def test_a_scaled_network_is_scaled_again() -> None:
    old = network("cls")
    twice = scale(scale(old, FILE, "200M"), FILE, "300M")
    assert 0.96 * 300e6 <= twice.cost.macs <= 300e6
    assert twice.provenance["scaled_from"]["space"].startswith("variant a of width 0.")


WRONG = {
    "too small": ("1K", "cannot be scaled to 1K: at 32x32 the nearest network has"),
    "too large for its image": ("1000G@32x32", "cannot be scaled to 1000G@32x32: at 32x32 the nearest network"),
    "another unit": ("8ms", "budget '8ms' is not a positive number with its unit"),
    "no resolution": ("8M@50x50", "multiples of 32"),
}


@pytest.mark.parametrize(("target", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_target_is_refused(target: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        scale(network(), FILE, target)


def test_networks_of_other_spaces_and_of_several_tasks_are_refused(branched: Path) -> None:
    wide = make_architecture(WideSpace(), {"cls": WideSpace().empty()}, CLASSES, (64, 64), provenance={})
    shared = make_architecture(
        FourPathSpace(), dict.fromkeys(("cls", "det"), FourPathSpace().empty()), CLASSES, (64, 64), provenance={}
    )
    for other in (wide, shared, load_architecture(branched)):
        with pytest.raises(UserError, match=r"/det\.json is a network for .* only networks of one task"):
            scale(other, FILE, "10M")


def test_sizes_are_multiples_of_32() -> None:
    assert scale_size((224, 640), (0.7, 0.5)) == (160, 320)
    assert scale_size((64, 64), (0.1, 1.25)) == (32, 96)


def test_the_largest_width_costs_no_more_than_the_limit() -> None:
    assert largest_width(lambda width: 100 * width**2, 144.0) == pytest.approx(1.2, rel=1e-3)
    assert largest_width(lambda width: 100 * width**2, 144.0) <= 1.2
    assert largest_width(lambda width: math.inf, 1.0) == pytest.approx(0.05)
