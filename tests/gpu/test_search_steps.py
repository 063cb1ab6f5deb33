from typing import Any

import pytest
import torch

from tests.gpu.search_steps import attempt


def test_out_of_memory_is_a_result_and_any_error_has_its_traceback() -> None:
    def raising(error: Exception) -> dict[str, Any]:
        raise error

    assert attempt(lambda: {"steps": 1}) == {"steps": 1}
    full = attempt(lambda: raising(torch.OutOfMemoryError("CUDA out of memory. Tried\nmore")))
    assert full == {"out_of_memory": True, "message": "CUDA out of memory. Tried"}
    wrong = attempt(lambda: raising(TypeError("can't convert cuda:0 tensor to numpy\nUse .cpu()")))
    assert wrong["error"] == "TypeError: can't convert cuda:0 tensor to numpy"
    assert "Traceback" in wrong["traceback"]
    with pytest.raises(KeyboardInterrupt):
        attempt(interrupt)


def interrupt() -> dict[str, Any]:
    raise KeyboardInterrupt
