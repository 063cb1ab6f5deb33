"""Does a table predict published networks? FBNetV3-A to -G, predicted from their own blocks, against measured times.

Expected: with the blocks of all seven (ordinary padding, 224x224, 1000 classes) profiled into a copy of a table, and
the table's correction fitted on its own sampled networks only, each network is predicted within 5 % of its measured
time. None of the seven takes part in a fit: their blocks get the scale that the fit gives to blocks in no sampled
network.

    python benchmarks/published_networks.py luts/cpu-fp32-b1.json

Prints a table and ends in one JSON line. The latency table is not changed.
"""

import argparse
import json
import shutil
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path

from fbnetv5.blocks.specs import PooledHead
from fbnetv5.costs.counting import count
from fbnetv5.costs.tables import block_key, block_shapes
from fbnetv5.data.scenes import CLASSES
from fbnetv5.deploy.profile import Scope, graphs_of
from fbnetv5.deploy.profile_networks import networks_to_fit
from fbnetv5.spaces.fbnetv3 import FBNETV3, FBNetV3, FBNetV3Network
from fbnetv5.spaces.four_path import FourPathSpace
from latency.devices import resolve
from latency.profile import Graph, Network, measure_networks, pick_remeasured, profile, relative_speed
from latency.table import LatencyTable

RESOLUTION = (224, 224)
SCOPE = Scope(space=FourPathSpace(), tasks=("cls", "det", "seg"), classes=CLASSES, resolution=RESOLUTION)
"""The scope of the latency table."""


def published_graphs(config: FBNetV3) -> list[Graph]:
    """List the network's blocks in order, and its head."""
    graphs, stride, width = [], 1, 3
    for block in (block for partition in config.partitions() for block in partition):
        stride, width = stride * block.stride, block.out_channels
        key, shapes = block_key(block, stride, RESOLUTION), block_shapes(block, stride, RESOLUTION)
        graphs.append(Graph(key=key, build=block.build, input_shapes=shapes))
    side = RESOLUTION[0] // stride
    key, build = f"fbnetv3_head_c{width}@{side}x{side}", partial(PooledHead, width, 1000)
    return [*graphs, Graph(key=key, build=build, input_shapes=((width, side, side),))]


def network(letter: str) -> Network:
    """Make the whole network."""
    config = FBNETV3[letter].with_ordinary_padding()
    build, shapes = partial(FBNetV3Network, config), ((3, *RESOLUTION),)
    return Network(
        key=f"fbnetv3-{letter}",
        build=build,
        input_shapes=shapes,
        task="cls",
        blocks=dict(Counter(graph.key for graph in published_graphs(config))),
        macs=count(build, shapes).macs,
    )


def main() -> None:
    """Profile, measure, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path, help="corrected table of this machine")
    arguments = parser.parse_args()
    original = LatencyTable.load(arguments.table)
    backend = resolve(original.device, precision=original.precision, threads=original.threads)
    graphs = graphs_of(SCOPE)
    graphs += [graph for config in FBNETV3.values() for graph in published_graphs(config.with_ordinary_padding())]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / arguments.table.name
        shutil.copy(arguments.table, path)
        table = profile(graphs, path=path, backend=backend, timing=original.timing).table
    earlier = {key: stored.measurement for key, stored in table.networks.items()}
    remeasured = pick_remeasured(networks_to_fit(SCOPE, len(earlier)), earlier)
    networks = [network(letter) for letter in FBNETV3]
    now = measure_networks([*networks, *remeasured.values()], backend=backend, timing=table.timing)
    speed = relative_speed(earlier, {key: now[key].measurement for key in remeasured})
    rows = {}
    for published in networks:
        predicted_ms = table.total_ms(Counter(published.blocks).elements())
        measured_ms = now[published.key].measurement.at_speed(speed).latency_ms_median
        error = predicted_ms / measured_ms - 1
        print(f"{published.key}  {predicted_ms:6.2f} ms predicted  {measured_ms:6.2f} ms measured  {error:+.1%}")
        rows[published.key] = {"predicted_ms": predicted_ms, "measured_ms": measured_ms, "error": error}
    worst = max(abs(row["error"]) for row in rows.values())
    print(json.dumps({"kind": table.values_kind, "worst_error": worst, "speed": speed, "networks": rows}))


if __name__ == "__main__":
    main()
