import numpy as np
import torch

from fbnetv5.runs.loss_scale import DECAY, FLOOR, LossScale

ONES = np.ones(2)


def test_the_first_loss_is_the_average_and_later_ones_move_it() -> None:
    scale = LossScale(2, torch.device("cpu"))
    factor, scale.values = scale.factors(torch.tensor([8.0, 0.0]), torch.tensor([2.0, 0.0]), ONES)
    assert factor.tolist() == [0.25, 0.0]
    assert np.array_equal(scale.on_host(), [4.0, np.nan], equal_nan=True)
    factor, scale.values = scale.factors(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 1.0]), ONES)
    assert factor.tolist() == [0.25, 1 / 3]
    np.testing.assert_allclose(scale.on_host(), [DECAY * 4 + (1 - DECAY) * 2, 3.0], rtol=1e-15)


def test_weights_multiply_the_factors_and_averages_have_a_floor() -> None:
    scale = LossScale(1, torch.device("cpu"))
    factor, scale.values = scale.factors(torch.tensor([0.0]), torch.tensor([4.0]), np.array([0.5]))
    assert factor.tolist() == [0.5 / FLOOR]
    assert scale.on_host().tolist() == [FLOOR]


def test_the_averages_are_in_double_precision() -> None:
    scale, rng, expected = LossScale(3, torch.device("cpu")), np.random.default_rng(0), np.full(3, np.nan)
    for _ in range(50):
        sums = rng.exponential(size=3).astype(np.float32)
        counts, weights = rng.integers(0, 3, 3).astype(np.float32), rng.random(3)
        factor, scale.values = scale.factors(torch.from_numpy(sums), torch.from_numpy(counts), weights)
        for task in np.flatnonzero(counts):
            mean = max(np.float64(sums[task]) / counts[task], 1e-3)
            before = mean if np.isnan(expected[task]) else expected[task]
            assert factor[task] == weights[task] / before
            expected[task] = 0.98 * before + (1 - 0.98) * mean
        assert not factor[counts == 0].any()
        np.testing.assert_array_equal(scale.on_host(), expected)


def test_restored_averages_are_the_saved_ones() -> None:
    scale = LossScale(2, torch.device("cpu"))
    scale.load(torch.tensor([1.5, float("nan")], dtype=torch.float64))
    assert np.array_equal(scale.on_host(), [1.5, np.nan], equal_nan=True)
