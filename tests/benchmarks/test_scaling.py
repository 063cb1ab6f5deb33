import pytest

from benchmarks.scaling import all_reduce_s, plan


def test_the_ring_moves_what_every_link_must_carry() -> None:
    assert all_reduce_s(1, 1e9) == 0.0
    assert all_reduce_s(2, 450e9) == pytest.approx(1.0)  # each sends its half twice
    assert all_reduce_s(64, 50e9) == pytest.approx(2 * 63 / 64)


def test_gpus_share_the_images_and_pay_for_communication() -> None:
    one, eight = plan(1, 10**6, 100.0), plan(8, 10**6, 100.0)
    assert one.efficiency == 1.0
    assert one.hours_per_epoch > eight.hours_per_epoch > one.hours_per_epoch / 8
    assert eight.gpu_hours_per_epoch == pytest.approx(8 * eight.hours_per_epoch)
    assert one.labelling_hours == pytest.approx(10**4 / 3600)
    assert eight.decoding_cores < 8 * one.decoding_cores
