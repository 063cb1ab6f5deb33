from pathlib import Path

from latency.table import LatencyTable
from tests.command_line import fbnetv5
from tests.contract.stored import STORED

SMALL = ["--stages", "1", "--blocks-per-path", "1", "--resolution", "64"]


def test_a_table_of_another_machine_is_refused(tmp_path: Path) -> None:
    table = LatencyTable.load(STORED / "tables" / "cpu-fp32-b1.json", other_machine=True)
    table.changed(fingerprint={**table.fingerprint, "device_name": "Other 9000"}).save(tmp_path / "t.json")
    done = fbnetv5("profile", "verify", "t.json", "--networks", "2", *SMALL, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is of another machine" in " ".join(done.stderr.split())


def test_one_network_is_too_few(tmp_path: Path) -> None:
    table = STORED / "tables" / "cpu-fp32-b1.json"
    done = fbnetv5("profile", "verify", str(table), "--networks", "1", *SMALL, cwd=tmp_path)
    assert done.returncode == 2
    assert "compared with at least 2 networks, not 1" in " ".join(done.stderr.split())
