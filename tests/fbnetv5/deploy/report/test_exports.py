from collections.abc import Callable
from pathlib import Path

from export.manifest import read_manifest
from fbnetv5.deploy.export_folder import write_export_folder
from fbnetv5.deploy.export_model import INPUT, ExportModel
from fbnetv5.deploy.exported import Exported
from fbnetv5.deploy.report.exports import export_items
from latency.page.content import Table, Text
from latency.runtimes.onnxruntime import cpu_name


def test_an_exported_folder_has_its_latency_stages_and_parity(
    make_exported: Callable[..., Exported], classifier: ExportModel, content: bytes, tmp_path: Path
) -> None:
    exported = make_exported(tmp_path, 0.5, 0.25)
    images = {INPUT: classifier.seeded(classifier.resolution, 2)[INPUT]}
    write_export_folder(exported, content, images)
    networks, stages, parity = export_items({exported.folder: read_manifest(exported.folder)})
    assert isinstance(networks, Table)
    assert isinstance(stages, Table)
    assert isinstance(parity, Table)
    assert list(networks.rows[0])[-3:] == ["1.250", "-", cpu_name()]
    assert list(stages.rows[0])[2:4] == ["torch 0.5000, fp32 0.2500", "0.2500"]
    assert [row[0] for row in parity.rows] == [
        "cls: cls_logits" if "cls_logits" in classifier.output_names else "cls: logits"
    ]


def test_a_run_without_an_export_says_so() -> None:
    (text,) = export_items({})
    assert isinstance(text, Text)
    assert "No exported network" in text.paragraphs[0]
