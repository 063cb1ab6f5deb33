"""One of two gloo processes that run a search for a branched network together; test_loop.py starts them.

Usage: torchrun --nproc_per_node 2 -m tests.fbnetv5.search.bmtas.two_processes FOLDER ROUTING
"""

import hashlib
import sys
from pathlib import Path

import torch
from accelerate.utils import gather_object

from fbnetv5.runs.processes import process_group_cleanup
from fbnetv5.search.bmtas.loop import BranchLoop
from fbnetv5.search.bmtas.prepare import prepare
from fbnetv5.search.bmtas.supernet import BranchedSupernet
from tests.fbnetv5.search.bmtas.conftest import tiny_config


def main() -> None:
    """Run a few steps, then compare weights and routing of both processes."""
    prepared = prepare(tiny_config(steps=4, routing=sys.argv[2]))
    torch.manual_seed(0)
    loop = BranchLoop(prepared, Path(sys.argv[1]), BranchedSupernet(prepared.space, prepared.tasks))
    loop.run(lambda entry: None)
    digest = hashlib.sha256(loop.logits.detach().numpy().tobytes())
    for parameter in loop.supernet.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    digests = gather_object([digest.hexdigest()])
    assert len(digests) == 2
    assert digests[0] == digests[1]


if __name__ == "__main__":
    with process_group_cleanup():
        main()
