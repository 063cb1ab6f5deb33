from pathlib import Path
from typing import Any

import pytest

from fbnetv5 import api
from tests.contract.schemas import check_document


def test_images_are_labelled_and_previewed(image_folder: Path, tmp_path: Path) -> None:
    rules, lines = {"saliency": "seg"}, list[str]()
    options: dict[str, Any] = {"derive": rules, "log": lines.append}
    summary = api.label(image_folder, tmp_path / "labelled", **options)
    check_document(["label"], summary.to_json())
    assert "whose labels are kept" in lines[0]
    preview = api.preview_labels(image_folder, tmp_path / "page.html", 2, **options)
    check_document(["label", "--preview"], preview.to_json())
    with pytest.raises(api.UserError, match="neither cpu nor cuda"):
        api.label(image_folder, tmp_path / "other", derive=rules, device="tpu")
    with pytest.raises(api.UserError, match="--gpus-per-teacher is for a Ray cluster: add --ray auto"):
        api.label(image_folder, tmp_path / "other", derive=rules, gpus_per_teacher=1)
