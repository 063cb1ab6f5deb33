import os
from importlib.metadata import version

import numpy as np
import pytest
import torch
from torch import nn

from export.errors import UserError
from export.graph import to_onnx_bytes
from latency.cpu import CpuBackend, cpu_name


def test_the_fingerprint_has_everything_that_changes_times() -> None:
    fingerprint = CpuBackend(threads=2).fingerprint()
    assert fingerprint["device_name"] == cpu_name() != ""
    assert fingerprint["threads"] == 2
    assert fingerprint["cores"] == os.cpu_count()
    assert fingerprint["runtime_version"] == version("onnxruntime")


@pytest.mark.parametrize(("wrong", "message"), [({"precision": "fp16"}, "fp32 or int8"), ({"threads": 0}, "1 thread")])
def test_wrong_settings_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CpuBackend(**wrong)  # type: ignore[arg-type]


def test_a_larger_graph_takes_longer_and_wrong_inputs_are_refused() -> None:
    def graph(side: int) -> tuple[bytes, dict[str, np.ndarray]]:
        image = torch.zeros(1, 8, side, side)
        content = to_onnx_bytes(nn.Conv2d(8, 8, 3), (image,), input_names=["x"], output_names=["y"])
        return content, {"x": image.numpy()}

    small, large = (CpuBackend().open(*graph(side)) for side in (8, 256))
    assert min(large(1) for _ in range(9)) > min(small(1) for _ in range(9)) > 0
    with pytest.raises(UserError, match="refuses these inputs"):
        CpuBackend().open(graph(8)[0], {"z": np.zeros((1, 8, 8, 8), np.float32)})


def test_copies_alternate_and_are_not_faster() -> None:
    image = torch.zeros(1, 8, 64, 64)
    content = to_onnx_bytes(nn.Conv2d(8, 8, 3), (image,), input_names=["x"], output_names=["y"])
    single, three = (CpuBackend().open(content, {"x": image.numpy()}, copies=copies) for copies in (1, 3))
    assert 0 < min(three(6) for _ in range(9)) < 10 * min(single(6) for _ in range(9))
