import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from export.errors import VerificationError
from export.graph import to_onnx_bytes
from export.parity import GATES, Gate, OutputGroup, Parity, check, compare, compare_groups
from export.runners import Array, OrtRunner, TorchRunner


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Hardswish(), nn.Flatten(), nn.Linear(8 * 36, 5))


def logits(*rows: list[float]) -> dict[str, Array]:
    return {"logits": np.asarray(rows, dtype=np.float32)}


def ranked(scores: list[float], boxes: list[float], labels: list[int]) -> dict[str, Array]:
    """The list of one image: scores [1, K], boxes [1, K, 4] with each number four times, labels [1, K]."""
    return {
        "scores": np.asarray([scores], dtype=np.float32),
        "boxes": np.repeat(np.asarray([boxes], dtype=np.float32)[:, :, None], 4, axis=2),
        "labels": np.asarray([labels]),
    }


def test_figures_equal_a_hand_computation() -> None:
    (parity,) = compare(logits([0.0, 4.0], [3.0, 1.0]), logits([0.0, 4.0], [1.0, 2.0]))
    # Largest difference 2, range 4 - 0; dot 16 + 3 + 2 = 21; squared norms 26 and 21; one of two argmaxes stays.
    assert parity.error_of_range == pytest.approx(0.5)
    assert parity.cosine == pytest.approx(21 / np.sqrt(26 * 21))
    assert parity.agreement == 0.5


def test_the_exported_network_passes_and_a_sabotaged_weight_does_not() -> None:
    net, x = network(), torch.randn(2, 3, 8, 8)
    reference = TorchRunner(net, ["x"], ["y"])({"x": x.numpy()})
    content = to_onnx_bytes(net, (x,), input_names=["x"], output_names=["y"])
    check(compare(reference, OrtRunner(content)({"x": x.numpy()})))
    with torch.no_grad():
        net.get_parameter("3.weight")[2, 7] += 0.1
    sabotaged = to_onnx_bytes(net, (x,), input_names=["x"], output_names=["y"])
    with pytest.raises(VerificationError, match="output 'y' differs by"):
        check(compare(reference, OrtRunner(sabotaged)({"x": x.numpy()})))


@given(st.floats(1e-6, 1e3))
def test_the_tolerance_in_the_message_passes(error: float) -> None:
    parity = Parity(name="y", finite=True, error_of_range=error, cosine=None, agreement=None)
    with pytest.raises(VerificationError) as raised:
        check([parity], Gate(max_error=1e-7))
    match = re.search(r"would pass is (\S+)$", str(raised.value))
    assert match
    check([parity], Gate(max_error=float(match.group(1))))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_never_pass(bad: float) -> None:
    for reference, candidate in ((logits([1, bad]), logits([1, 2])), (logits([1, bad]), logits([1, bad]))):
        with pytest.raises(VerificationError, match="'logits' contains NaN or infinity"):
            check(compare(reference, candidate), Gate(max_error=1e9))


def test_integers_count_equal_entries() -> None:
    (parity,) = compare({"labels": np.arange(8)}, {"labels": np.asarray([0, 1, 2, 3, 4, 5, 6, 0])})
    assert parity.agreement == 0.875
    with pytest.raises(VerificationError, match=r"differs by 0\.125 of its entries"):
        check([parity])


@pytest.mark.parametrize(
    ("reference", "candidate", "error"),
    [([5.0], [5.25], 0.5), ([5.0, 5.01], [5.0, 5.0], 0.01 / 0.501), ([0.0, 0.0], [0.0, 0.5], 0.5), ([0.0], [0.0], 0.0)],
    ids=["constant", "nearly constant", "all zero", "equal zeros"],
)
def test_outputs_of_small_range(reference: list[float], candidate: list[float], error: float) -> None:
    (parity,) = compare(logits(reference), logits(candidate))
    assert parity.error_of_range == pytest.approx(error, rel=1e-4)


@pytest.mark.parametrize(
    "candidate",
    [{}, logits([1.0]), {"logits": np.zeros((1, 2), dtype=np.int64)}, {**logits([1.0, 2.0]), "more": np.zeros(1)}],
    ids=["missing", "shape", "kind", "surplus"],
)
def test_outputs_of_other_names_shapes_or_kinds_are_refused(candidate: dict[str, Array]) -> None:
    with pytest.raises(VerificationError):
        compare(logits([1.0, 2.0]), candidate)


def test_tied_rows_may_swap_only_in_a_ranked_list() -> None:
    reference = ranked([0.9, 0.5, 0.5, 0.1], [1, 2, 3, 4], [7, 8, 9, 7])
    swapped = ranked([0.9, 0.5, 0.5, 0.1], [1, 3, 2, 4], [7, 9, 8, 7])
    check(compare(reference, swapped, rank_by="scores"))
    with pytest.raises(VerificationError, match="output 'labels'"):
        check(compare(reference, swapped))


def test_an_output_of_a_group_that_neither_side_has_is_an_error() -> None:
    groups = [OutputGroup(outputs=("logits", "other"))]
    with pytest.raises(VerificationError, match="there is no output 'other' to compare"):
        compare_groups(logits([1.0]), logits([1.0]), groups, gate=GATES["fp32"])


def test_rounding_decides_which_objects_that_tie_with_the_last_row_are_in_a_long_list() -> None:
    scores = [*np.linspace(0.9, 0.1, 99).tolist(), 0.1]
    reference = ranked(scores, [*range(98), 500, 700], [7] * 100)
    check(compare(reference, ranked(scores, [*range(98), 500, 900], [7] * 100), rank_by="scores"))
    check(compare(reference, ranked(scores, [*range(98), 700, 900], [7] * 99 + [8]), rank_by="scores"))
    with pytest.raises(VerificationError):  # more rows than rounding replaces
        check(compare(reference, ranked(scores, [*range(97), 900, 901, 902], [7] * 100), rank_by="scores"))
    with pytest.raises(VerificationError):  # no tie
        check(compare(reference, ranked(scores, [*range(96), 900, 97, 500, 700], [7] * 100), rank_by="scores"))
    with pytest.raises(VerificationError):  # a list of everything, of which nothing is left out
        check(compare(ranked([0.9, 0.1], [1, 2], [7, 7]), ranked([0.9, 0.1], [1, 3], [7, 7]), rank_by="scores"))


@given(st.integers(min_value=2, max_value=40), st.permutations(range(40)), st.integers(min_value=0, max_value=39))
def test_one_of_many_objects_that_tie_at_the_end_of_a_list_may_be_another(
    tied: int, order: list[int], place: int
) -> None:
    scores = [*np.linspace(0.9, 0.2, 100 - tied).tolist(), *[0.1] * tied]
    reference = [*range(100)]
    candidate = [*range(100 - tied), *(60 + row for row in order if row >= 40 - tied)]
    candidate[100 - tied + place % tied] = 300
    check(compare(ranked(scores, reference, [7] * 100), ranked(scores, candidate, [7] * 100), rank_by="scores"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_found_in_the_last_row_of_a_list(value: float) -> None:
    scores = [*np.linspace(0.9, 0.1, 98).tolist(), 0.1, 0.1]
    reference = ranked(scores, [*range(100)], [7] * 100)
    candidate = ranked(scores, [*range(99), value], [7] * 100)
    with pytest.raises(VerificationError, match="NaN or infinity"):
        check(compare(reference, candidate, rank_by="scores"))


@pytest.mark.parametrize(
    "candidate",
    [
        ranked([0.9, 0.5, 0.5, 0.1], [2, 1, 3, 4], [8, 7, 9, 7]),
        ranked([0.9, 0.5, 0.5, 0.1], [1, 3, 2, 4], [7, 8, 9, 7]),
        ranked([0.9, 0.5, 0.5, 0.1], [1, 2, 2, 4], [7, 8, 8, 7]),
        ranked([0.9, 0.5, 0.4, 0.1], [1, 2, 3, 4], [7, 8, 9, 7]),
    ],
    ids=["swap without a tie", "boxes swapped without their labels", "a row given twice", "another score"],
)
def test_ranking_matches_tied_rows_only(candidate: dict[str, Array]) -> None:
    reference = ranked([0.9, 0.5, 0.5, 0.1], [1, 2, 3, 4], [7, 8, 9, 7])
    with pytest.raises(VerificationError):
        check(compare(reference, candidate, rank_by="scores"))
