"""How do searched networks run beside the networks of timm that a user would take instead?

The classifiers that searches found, and ``fbnetv3_b``, ``mobilenetv3_large_100``, ``efficientnet_b0`` and
``efficientnet_lite0`` of timm, all with their classifiers and random weights, are exported to ONNX in float32 and timed
by ONNX Runtime at the resolution of the first run, batch 1, by the protocol of latency tables
(``latency/protocol.py``): in one process, in turns, beside a reference workload that removes the drift of a busy
machine. Networks of other tasks are timed too, with their heads; timm has no counterpart of them.

Expected: milliseconds per 10^9 multiply-adds of the searched classifiers within the range of timm's networks.

    python -m benchmarks.timm_latency runs/latest

Two minutes of one core. Prints a table and ends in one JSON line.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.experiment import machine
from export.errors import UserError
from fbnetv5.costs.counting import count
from fbnetv5.data.resolution import Resolution
from fbnetv5.deploy.profile_networks import found_networks
from latency.backends import open_backend
from latency.correction import MeasuredNetwork
from latency.profile import Network, measure_networks
from latency.protocol import Timing

REPETITIONS = 16
PUBLISHED = ("fbnetv3_b", "mobilenetv3_large_100", "efficientnet_b0", "efficientnet_lite0")


def build_timm(name: str) -> nn.Module:
    """The network with random weights and 1000 classes."""
    import timm

    model: nn.Module = timm.create_model(name, pretrained=False)
    return model.eval()


def published_network(name: str, resolution: Resolution) -> Network:
    """A network of timm, with its multiply-adds."""
    build, shapes = partial(build_timm, name), ((3, *resolution),)
    macs = count(build, shapes).macs
    return Network(key=f"timm {name}", build=build, input_shapes=shapes, task="cls", blocks={}, macs=macs)


def row(name: str, network: MeasuredNetwork) -> dict[str, Any]:
    """The figures of a network."""
    measured = network.measurement
    return {
        "name": name,
        "task": network.task,
        "macs": network.macs,
        "latency_ms_p50": measured.latency_ms_median,
        "ms_per_gmac": measured.latency_ms_median / network.macs * 1e9,
        "cv": measured.cv,
        "runs": measured.runs,
    }


def within_published(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether all searched classifiers take between the least and the most of timm's networks per multiply-add."""
    published = [of["ms_per_gmac"] for of in rows if of["name"] in PUBLISHED]
    searched = [of["ms_per_gmac"] for of in rows if of["name"] not in PUBLISHED and of["task"] == "cls"]
    return all(min(published) <= ms <= max(published) for ms in searched)


def networks_of_runs(runs: Sequence[Path]) -> tuple[Resolution, dict[str, Network]]:
    """The resolution of the first run, and all networks of the runs by "RUN TASK".

    Raises:
        UserError: a run is unfinished, or has another resolution than the first.
    """
    opened = {run: found_networks(run) for run in runs}
    resolutions = {scope.resolution for scope, _ in opened.values()}
    if len(resolutions) > 1:
        raise UserError(f"these runs have several resolutions: {sorted(resolutions)}; name runs of one")
    named = {f"{run.name} {network.task}": network for run, (_, networks) in opened.items() for network in networks}
    return resolutions.pop(), named


def main(line: Sequence[str] | None = None) -> None:
    """Export, time, print a table and one JSON line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished searches")
    parser.add_argument("--published", nargs="+", default=PUBLISHED, choices=PUBLISHED, metavar="NAME")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS, help="turns over all networks")
    parser.add_argument("--threads", type=int, default=1, help="threads of ONNX Runtime")
    arguments = parser.parse_args(line)
    resolution, searched = networks_of_runs(arguments.runs)
    networks = searched | {name: published_network(name, resolution) for name in arguments.published}
    timing, backend = Timing(repetitions=arguments.repetitions), open_backend("cpu", threads=arguments.threads)
    measured = measure_networks(list(networks.values()), backend=backend, timing=timing)
    rows = [row(name, measured[network.key]) for name, network in networks.items()]
    print(f"{'network':>28} {'M macs':>8} {'ms p50':>8} {'ms/GMAC':>8} {'cv':>6}")
    for of in rows:
        figures = f"{of['macs'] / 1e6:8.1f} {of['latency_ms_p50']:8.2f} {of['ms_per_gmac']:8.1f} {of['cv']:6.1%}"
        print(f"{of['name']:>28} {figures}")
    report = {
        "benchmark": "timm_latency",
        "as_expected": within_published(rows),
        "resolution": resolution,
        "runtime": backend.fingerprint(),
        "timing": asdict(timing),
        **backend.conditions(),
        **machine(arguments.threads),
        "rows": rows,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
