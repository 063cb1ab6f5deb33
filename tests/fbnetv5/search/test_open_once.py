"""A search opens each file of its input once, apart from lists of labels and the pixels that every epoch reads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import json, sys
from collections import Counter
opened = Counter()
sys.addaudithook(lambda event, args: opened.update([str(args[0])]) if event == "open" else None)
from fbnetv5.cli import main
from fbnetv5.data import header_index
headers, read = Counter(), header_index.read_header
header_index.read_header = lambda path: headers.update([str(path)]) or read(path)
sys.argv = ["fbnetv5", *json.loads(sys.argv[1])]
try:
    main()
finally:
    print(json.dumps({"opened": opened, "headers": headers}), file=sys.stderr)
"""
FIELDS = {
    "warmup_steps": 1,
    "steps": 1,
    "batch": 4,
    "policy_batch": 4,
    "panel_draws": 16,
    "panel_checks": 3,
    "finalists": 1,
    "score_images": 4,
}
TABLE = Path(__file__).parents[2] / "data" / "v1" / "tables" / "cpu-fp32-b1.json"


@pytest.mark.slow
def test_a_search_opens_each_file_of_its_input_once(image_folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(FIELDS), encoding="utf-8")
    arguments = ["search", "--flops", "15M@64x64", "--tasks", "cls", "--table", str(TABLE), "--data", str(image_folder)]
    arguments += ["--stages", "1", "--blocks-per-path", "1", "--config", str(config), "--runs", str(tmp_path / "runs")]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CODE, json.dumps(arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    counts = json.loads(done.stderr.splitlines()[-1])
    for file in (TABLE, config):
        assert counts["opened"][str(file)] == 1, file
    assert counts["opened"][str(image_folder / "instances.json")] == 1
    assert counts["headers"] == dict.fromkeys(map(str, image_folder.glob("*/*.png")), 1)
