import math

import pytest
import torch
from torch.nn import functional

from fbnetv5.data.targets import IGNORE
from fbnetv5.tasks.pixels import PATHS, PixelHead, binary_losses, upsample


@pytest.mark.parametrize("outputs", [1, 5])
def test_the_head_predicts_at_a_quarter_of_the_size(outputs: int) -> None:
    features = [torch.randn(2, 8 + path, 64 // path, 96 // path) for path in PATHS]
    raw = PixelHead([8 + path for path in PATHS], outputs).eval()(features)
    assert raw.shape == (2, outputs, 16, 24)
    assert upsample(raw).shape == (2, outputs, 64, 96)


def test_every_path_matters() -> None:
    torch.manual_seed(0)
    head = PixelHead([8] * 4, 1).eval()
    features = [torch.randn(1, 8, 64 // path, 64 // path) for path in PATHS]
    whole = head(features)
    for lacking in range(4):
        changed = [torch.zeros_like(x) if number == lacking else x for number, x in enumerate(features)]
        assert not torch.allclose(head(changed), whole)


def test_undecided_logits_cost_log_two_and_images_without_labels_nothing() -> None:
    truth = torch.tensor([[[0, 1], [1, IGNORE]], [[IGNORE] * 2] * 2], dtype=torch.uint8)
    torch.testing.assert_close(binary_losses(torch.zeros(2, 2, 2), truth), torch.tensor([math.log(2), 0.0]))


def test_the_mean_is_weighted_over_known_pixels() -> None:
    torch.manual_seed(0)
    logits, weights = torch.randn(1, 4, 4), torch.rand(1, 4, 4)
    truth = torch.randint(2, (1, 4, 4), dtype=torch.uint8)
    truth[0, 0] = IGNORE
    known = truth != IGNORE
    expected = functional.binary_cross_entropy_with_logits(
        logits[known], truth[known].float(), weight=weights[known], reduction="sum"
    )
    torch.testing.assert_close(binary_losses(logits, truth, weights), (expected / weights[known].sum())[None])
