import json

import pytest

from export.errors import VerificationError
from export.trt.precision_check import check_types, inspected_types

TYPES = [
    ("fp32", {"FLOAT": 3, "INT64": 1, "BOOL": 1}, True),
    ("fp32", {"FLOAT": 3, "HALF": 1}, False),
    ("fp32", {"FLOAT": 3, "BF16": 1}, False),
    ("fp32", {"FLOAT": 3, "INT8": 1}, False),
    ("fp16", {"FLOAT": 1, "HALF": 9}, True),
    ("fp16", {"FLOAT": 9}, False),
    ("fp16", {"HALF": 9, "INT8": 1}, False),
    ("int8", {"FLOAT": 9, "INT8": 3}, True),
    ("int8", {"HALF": 9, "INT8": 3}, True),
    ("int8", {"FLOAT": 9}, False),
    ("int8", {"INT8": 3, "FP8": 3}, False),
]


@pytest.mark.parametrize(("precision", "layers", "right"), TYPES)
def test_an_engine_of_another_precision_is_refused(precision: str, layers: dict[str, int], right: bool) -> None:
    if right:
        check_types(layers, precision)
    else:
        with pytest.raises(VerificationError, match=f"should be {precision}, and the outputs of its layers"):
            check_types(layers, precision)


def test_a_part_of_a_network_may_lack_int8_only() -> None:
    check_types({"FLOAT": 9}, "int8", may_lack_int8=True)
    with pytest.raises(VerificationError, match="should be fp16"):
        check_types({"FLOAT": 9}, "fp16", may_lack_int8=True)


TENSORRT_10 = {
    "Layers": [
        {
            "Name": "conv + relu",
            "LayerType": "CaskConvolution",
            "Inputs": [{"Name": "x", "Format/Datatype": "Row major linear FP32"}],
            "Outputs": [{"Name": "a", "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}],
        },
        {"Name": "two", "Outputs": [{"Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}] * 2},
        {"Name": "float", "Outputs": [{"Format/Datatype": "Float"}]},
        {"Name": "indices", "Outputs": [{"Format/Datatype": "Row major Int32 format"}]},
        {"Name": "dynamic", "Outputs": [{"Format/Datatype": "N/A due to dynamic shapes"}]},
        {"Name": "nothing", "Outputs": []},
    ],
    "Bindings": ["x", "y"],
}
TENSORRT_11 = {
    "Layers": [
        {"Name": "conv", "Outputs": [{"Name": "a", "Format": "Row major linear", "DataType": "Half"}]},
        {
            "Name": "bfloat",
            "Outputs": [{"Format": "Row major linear FP32 format", "DataType": "BFloat16"}],
        },
        {"Name": "by its layout", "Outputs": [{"Name": "c", "Format": "Row major linear FP32 format (kLINEAR)"}]},
    ],
    "I/O Tensors": [{"Name": "x", "IOMode": "Input", "DataType": "Float"}],
}


@pytest.mark.parametrize(
    ("document", "types"),
    [
        (TENSORRT_10, {"INT8": 1, "HALF": 1, "FLOAT": 1, "INT32": 1}),
        (TENSORRT_11, {"HALF": 1, "BF16": 1, "FLOAT": 1}),
        ({"Layers": ["conv + relu", "pool"]}, {}),
        ({"Layers": []}, {}),
    ],
    ids=["10", "11", "names only", "no layers"],
)
def test_the_formats_of_both_major_versions_are_read(document: object, types: dict[str, int]) -> None:
    assert inspected_types(json.dumps(document)) == types


@pytest.mark.parametrize("text", ["", "[]", '{"Bindings": []}', '{"Layers": {}}'])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"Layers|Expecting value"):
        inspected_types(text)
