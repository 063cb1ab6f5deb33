import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from export.cuda import find_gpus
from export.errors import UnavailableError
from export.reference import read_reference, write_reference
from export.trt.engine import Engine
from fbnetv5.deploy.validate import time_engine, validate
from tests.contract.schemas import check_document
from tests.contract.stored import STORED

EXPORTED = STORED / "exported"


def test_a_valid_folder_is_timed() -> None:
    validation = validate(EXPORTED)
    assert validation.passed
    assert validation.failure is None
    check_document(["validate"], document := validation.to_json())
    latency = document["latency_ms"]["onnxruntime, 1 thread"]
    assert 0 < latency["median"] <= latency["p90"]


def test_a_network_with_other_outputs_fails_and_is_not_timed(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(EXPORTED, tmp_path / "net"))
    reference = read_reference(folder)
    changed = {name: array + 1 for name, array in reference.outputs.items()}
    write_reference(folder, replace(reference, outputs=changed))
    validation = validate(folder)
    assert not validation.passed
    assert str(validation.failure).startswith(f"{folder}: ")
    assert validation.latencies == {}


def test_an_engine_needs_a_gpu() -> None:
    try:
        here = bool(find_gpus())
    except UnavailableError:
        here = False
    if here:
        pytest.skip("for machines without a GPU")
    engine = Engine(
        file="model.engine", runtime="tensorrt_rtx", version="1", precision="fp32", layers={}, shapes=(), ran=False
    )
    with pytest.raises(UnavailableError):
        time_engine(EXPORTED, engine, read_reference(EXPORTED).inputs)
