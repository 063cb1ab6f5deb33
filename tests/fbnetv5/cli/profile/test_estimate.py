from pathlib import Path

from tests.command_line import SMALL, document, in_process

ORIN = ["--device", "orin", "--precision", "fp16"]


def test_every_figure_of_an_estimate_is_marked_as_estimated(tmp_path: Path) -> None:
    estimated = document("profile", "estimate", *ORIN, *SMALL, cwd=tmp_path)
    assert estimated["kind"] == "estimated"
    assert (estimated["peak_tflops"], estimated["bandwidth_gb_s"]) == (42.5, 204.8)
    assert estimated["kernel_floor_us"] == 1.081
    assert min(estimated["latency_ms"].values()) >= 0.001081
    done = in_process("profile", "estimate", *ORIN, *SMALL, cwd=tmp_path)
    assert all("estimated" in line for line in done.stdout.splitlines()[1:])
    assert "42.5 TFLOPS and 204.8 GB/s" in done.stdout
    assert "1.081 us or more for each kernel" in done.stdout
    done = in_process("search", "--latency", "1ms", "--table", estimated["table"], *SMALL, cwd=tmp_path)
    assert done.returncode == 2
    assert "det: networks of this space cost" in done.stderr
    assert all("estimated ms" in line for line in done.stderr.splitlines() if "this space" in line)
    done = in_process("search", "--latency", "1ms", "--device", "orin", *SMALL, cwd=tmp_path)
    assert done.returncode == 3


def test_the_cpu_cannot_be_estimated(tmp_path: Path) -> None:
    done = in_process("profile", "estimate", "--device", "cpu", *SMALL, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "which has no data sheet here; measure it" in " ".join(done.stderr.split())
