from pathlib import Path

from tests.command_line import document, in_process
from tests.contract.stored import STORED


def test_the_report_of_an_imported_table_is_written_beside_it(tmp_path: Path) -> None:
    imported = document("profile", "import", str(STORED / "bundle"), "--luts", "tables", cwd=tmp_path)
    assert (imported["table"], imported["report"]) == ("tables/cpu-fp32-b1.json", "tables/cpu-fp32-b1.html")
    assert "net1" in (tmp_path / imported["report"]).read_text(encoding="utf-8")
    again = in_process("profile", "import", str(STORED / "bundle"), "--luts", "tables", cwd=tmp_path)
    assert again.returncode == 2
    assert "tables/cpu-fp32-b1.json exists already" in again.stderr
