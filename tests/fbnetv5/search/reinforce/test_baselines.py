import numpy as np

from fbnetv5.search.reinforce.baselines import ImageBaseline, MovingAverage

TASKS = 3


def test_advantages_are_computed_before_the_average_is_updated() -> None:
    baseline = MovingAverage(TASKS, decay=0.75)
    baseline.mean[:] = [1.0, 2.0, 3.0]
    losses = np.array([[[1.0, 4.0, 2.0], [1.0, 8.0, np.nan]]])
    np.testing.assert_allclose(baseline.advantages(losses, np.arange(2)), [[0.0, 4.0, -1.0]])
    np.testing.assert_allclose(baseline.mean, [1.0, 3.0, 2.75])


def test_the_first_loss_becomes_the_average_and_has_no_advantage() -> None:
    baseline = MovingAverage(TASKS)
    assert np.isnan(baseline.advantages(np.array([[[1.0, 2.0, 3.0]]]), np.arange(1))).all()
    np.testing.assert_array_equal(baseline.mean, [1.0, 2.0, 3.0])


def test_two_architectures_update_the_average_once() -> None:
    baseline = MovingAverage(1, decay=0.5)
    baseline.mean[:] = 2.0
    np.testing.assert_allclose(baseline.advantages(np.array([[[3.0]], [[5.0]]]), np.arange(1)), [[1.0], [3.0]])
    np.testing.assert_allclose(baseline.mean, [3.0])


def test_a_task_without_labels_keeps_its_average() -> None:
    baseline = MovingAverage(TASKS)
    baseline.mean[:] = [1.0, 2.0, np.nan]
    advantages = baseline.advantages(np.array([[[5.0, np.nan, np.nan]]]), np.arange(1))
    np.testing.assert_allclose(advantages, [[4.0, np.nan, np.nan]])
    np.testing.assert_allclose(baseline.mean[1:], [2.0, np.nan])


def test_the_usual_losses_of_images_are_subtracted() -> None:
    baseline, usual = ImageBaseline(4, 1), np.array([[1.0], [5.0], [9.0], [2.0]])
    first = baseline.advantages(usual[None, :3], np.arange(3))
    again = baseline.advantages(usual[None, [2, 0]], np.array([2, 0]))
    worse = baseline.advantages(usual[None, [1, 2]] + 0.5, np.array([1, 2]))
    assert np.isnan([first, again]).all()  # nothing to compare with, and then no drift known yet
    np.testing.assert_allclose(worse, [[0.5]])


def test_the_drift_of_all_images_is_subtracted() -> None:
    baseline = ImageBaseline(2, 1, drift_decay=0.0)
    for level in (1.0, 0.75, 0.5):
        drifted = baseline.advantages(np.full((1, 2, 1), level), np.arange(2))
    np.testing.assert_allclose(baseline.means, 0.6 * (0.6 * 1.0 + 0.4 * 0.75) + 0.4 * 0.5)
    np.testing.assert_allclose(drifted, [[0.5 - 0.9 - (0.75 - 1.0)]])


def test_a_new_image_has_no_advantage() -> None:
    baseline = ImageBaseline(3, 1)
    for _ in range(2):
        baseline.advantages(np.array([[[1.0]]]), np.array([0]))
    advantages = baseline.advantages(np.array([[[1.25], [700.0]]]), np.array([0, 2]))
    np.testing.assert_allclose(advantages, [[0.25]])
    np.testing.assert_allclose(baseline.means[:, 0], [0.6 * 1.0 + 0.4 * 1.25, np.nan, 700.0])


def test_images_without_a_label_keep_their_average() -> None:
    baseline = ImageBaseline(2, 2)
    baseline.means[:] = [[1.0, 2.0], [3.0, 4.0]]
    baseline.drift.mean[:] = 0.0
    advantages = baseline.advantages(np.array([[[np.nan, np.nan], [3.0, np.nan]]]), np.arange(2))
    np.testing.assert_array_equal(advantages, [[0.0, np.nan]])
    np.testing.assert_array_equal(baseline.means, [[1.0, 2.0], [3.0, 4.0]])
