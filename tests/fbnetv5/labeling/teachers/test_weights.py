"""Weights come from files of this machine, and what is missing is one line with the way out."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from export.errors import UnavailableError, UserError
from fbnetv5.labeling.teachers.weights import hub_file, load_weights, read_weights, url_file

URL = "https://example.org/models/net-abc.pth"


def test_weights_of_all_usual_files_are_read(tmp_path: Path) -> None:
    state = nn.Linear(2, 3).state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pth")
    torch.save({"model": state, "epoch": 3}, tmp_path / "c.pth")
    torch.save({"state_dict": state}, tmp_path / "d.pt")
    for name in ("a.safetensors", "b.pth", "c.pth", "d.pt"):
        network = nn.Linear(2, 3)
        load_weights(network, tmp_path / name)
        assert torch.equal(network.weight, state["weight"])


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    (tmp_path / "damaged.pth").write_bytes(b"xx")
    torch.save(nn.Linear(2, 4).state_dict(), tmp_path / "other.pth")
    torch.save(torch.zeros(2), tmp_path / "tensor.pth")
    with pytest.raises(UserError, match=r"cannot read the weights .*none\.pth: it does not exist"):
        read_weights(tmp_path / "none.pth")
    with pytest.raises(UserError, match=r"cannot read the weights .*damaged\.pth"):
        read_weights(tmp_path / "damaged.pth")
    with pytest.raises(UserError, match="contains no weights by name"):
        read_weights(tmp_path / "tensor.pth")
    with pytest.raises(UserError, match=r"other\.pth has the weights of another network"):
        load_weights(nn.Linear(2, 3), tmp_path / "other.pth")


def test_a_cached_file_is_used_and_a_missing_one_is_not_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UnavailableError, match="add --download, or name a file of weights as timm:net@FILE") as error:
        url_file(URL, name="timm:net", download=False)
    assert error.value.exit_code == 3
    cached = tmp_path / "hub" / "checkpoints" / "net-abc.pth"
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert url_file(URL, name="timm:net", download=False) == cached
    with pytest.raises(UnavailableError, match="are not on this machine"):
        hub_file("timm/no-such-net", ["model.safetensors"], name="timm:net", download=False)


class Counting(BaseHTTPRequestHandler):
    """Sends a file of weights slowly and counts how often."""

    requests: ClassVar[int] = 0

    def do_GET(self) -> None:
        Counting.requests += 1
        time.sleep(0.2)
        self.send_response(200)
        self.send_header("Content-Length", "7")
        self.end_headers()
        self.wfile.write(b"weights")

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def test_of_several_that_lack_a_file_one_downloads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), Counting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/net.pth"
        with ThreadPoolExecutor(3) as pool:  # a lock of a file excludes threads that open it themselves as well
            files = list(pool.map(lambda _: url_file(url, name="timm:net", download=True), range(3)))
        server.shutdown()
    assert {file.read_bytes() for file in files} == {b"weights"}
    assert Counting.requests == 1
