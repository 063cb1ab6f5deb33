import pytest

from export.errors import UserError
from fbnetv5.deploy.export_options import ExportOptions

WRONG = {
    "precision": ({"precision": "fp8"}, "no precision 'fp8'; known are fp32, fp16, int8"),
    "drop": ({"max_drop": float("nan")}, "--max-drop is nan, where a number such as 0.01 is needed"),
    "float nodes": ({"keep_float": ("/head/*",), "precision": "fp16"}, "it needs --precision int8"),
}


@pytest.mark.parametrize(("fields", "message"), WRONG.values(), ids=WRONG)
def test_wrong_options_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ExportOptions(**fields)  # type: ignore[arg-type]
