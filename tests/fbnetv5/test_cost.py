from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from export.errors import UserError
from fbnetv5.backbone import TaskNetwork
from fbnetv5.blocks import InvertedResidual, Stem
from fbnetv5.cost import (
    Budget,
    CostTable,
    Counter,
    Resolution,
    block_key,
    block_shapes,
    check_resolution,
    format_cost,
    head_key,
    latency_table,
    parse_budgets,
    parse_resolution,
)
from fbnetv5.count import count
from fbnetv5.space import Choices, Node, Space
from fbnetv5.tasks import make_tasks

SPACE = Space(stages=2, blocks_per_path=1)
CLASSES = {"label": ("a", "b", "c"), "boxes": ("a", "b"), "mask": ("w", "x", "y", "z")}
TASKS = make_tasks(("cls", "det", "seg"), CLASSES)
NAMES = tuple(TASKS)
SMALL: Resolution = (64, 64)
COUNTERS = {resolution: Counter(resolution) for resolution in (SMALL, (96, 160), (224, 224))}
TABLES = {
    (name, unit): COUNTERS[SMALL].table(SPACE, TASKS[name], unit) for name in NAMES for unit in ("macs", "params")
}


class WiderSpace(Space):
    """Every inverted residual that may be skipped may also be cheaper or dearer than its first candidate."""

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(widened(node) for node in super().nodes)


def widened(node: Node) -> Node:
    (block,) = node.candidates
    if node.slot is None or not isinstance(block, InvertedResidual):
        return node
    return replace(node, candidates=(block, replace(block, expansion=block.expansion * 2), replace(block, expansion=1)))


def drawn(space: Space, seed: int, count: int = 1) -> Choices:
    return np.random.default_rng(seed).integers(np.array(space.choice_counts), size=(count, len(space.slots)))


def built(name: str, space: Space, choices: Choices) -> TaskNetwork:
    with torch.device("meta"):
        return TaskNetwork(TASKS[name], space, choices).eval()


def torch_macs(network: nn.Module, resolution: Resolution) -> int:
    """Multiply-adds as torch's own counter finds them, which counts each twice."""
    with torch.no_grad(), FlopCounterMode(display=False) as mode:
        network(torch.empty(1, 3, *resolution, device="meta"))
    total = mode.get_total_flops()
    assert total % 2 == 0
    return int(total) // 2


def weights(network: nn.Module) -> int:
    layers = [layer for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    return sum(layer.weight.numel() for layer in layers)


def assert_table_equals_network(name: str, space: Space, choices: Choices, resolution: Resolution) -> None:
    counter, network = COUNTERS[resolution], built(name, space, choices)
    whole = count(lambda: network, [(3, *resolution)])
    assert counter.table(space, TASKS[name], "macs").one(choices) == whole.macs
    assert counter.table(space, TASKS[name], "params").one(choices) == whole.params == weights(network)
    assert torch_macs(network, resolution) == whole.macs_conv


@pytest.mark.parametrize("resolution", [(64, 64), (224, 224), (96, 160)])
@pytest.mark.parametrize("name", NAMES)
def test_a_table_equals_the_network_that_is_built(name: str, resolution: Resolution) -> None:
    (choices,) = drawn(SPACE, seed=sum(resolution))
    assert_table_equals_network(name, SPACE, choices, resolution)


@pytest.mark.parametrize("name", NAMES)
def test_wider_choices_are_priced_without_more_ado(name: str) -> None:
    space = WiderSpace(stages=1, blocks_per_path=1)
    assert_table_equals_network(name, space, drawn(space, seed=1)[0], SMALL)


@pytest.mark.parametrize(("name", "variant"), [("cls", "a"), ("det", "c"), ("seg", "f")])
def test_the_default_space_of_each_variant_is_priced(name: str, variant: str) -> None:
    space = Space(variant=variant)
    assert_table_equals_network(name, space, drawn(space, 0)[0], (224, 224))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), key=st.sampled_from(sorted(TABLES)))
def test_nothing_is_cheaper_than_the_cheapest_or_dearer_than_the_dearest(seed: int, key: tuple[str, str]) -> None:
    table = TABLES[key]
    costs = table(drawn(SPACE, seed, count=64))
    assert table.cheapest <= costs.min()
    assert costs.max() <= table.dearest
    assert table.cheapest == table.one(SPACE.empty())


def test_the_dearest_takes_the_dearest_candidates() -> None:
    space = WiderSpace(stages=1, blocks_per_path=1)
    table = COUNTERS[SMALL].table(space, TASKS["seg"], "macs")
    doubled = np.array([2 if len(node.candidates) > 1 else 1 for node in space.slots])
    assert table.dearest == table.one(doubled) > table.one(space.full())
    assert table.dearest >= table(drawn(space, 0, count=256)).max()


def test_a_batch_costs_what_its_members_cost() -> None:
    batch = drawn(SPACE, 7, count=16)
    for table in TABLES.values():
        assert table(batch).tolist() == [table.one(choices) for choices in batch]


def test_keys_carry_the_size_of_the_first_input() -> None:
    block = InvertedResidual(kernel=5, in_channels=24, out_channels=40, expansion=5, stride=2, squeeze=True)
    assert block_key(block, 8, (320, 640)) == "ir_k5_c24-40_e5_s2_se@80x160"
    assert block_shapes(block, 8, (320, 640)) == ((24, 80, 160),)
    assert block_key(Stem(out_channels=16), 2, (320, 640)) == "stem_c16@320x640"
    assert head_key(TASKS["det"], SPACE, (320, 640)) == "head_det_c40-120-224_n2@320x640"


def made_up(keys: Sequence[str]) -> Mapping[str, float]:
    """Milliseconds that differ from key to key."""
    return {key: 0.01 * (1 + len(key)) for key in keys}


def milliseconds(name: str) -> CostTable:
    return latency_table(SPACE, TASKS[name], (96, 160), made_up)


@pytest.mark.parametrize("name", NAMES)
def test_milliseconds_are_the_sum_over_live_blocks_and_the_head(name: str) -> None:
    (choices,) = drawn(SPACE, 1)
    steps = SPACE.graph(choices, TASKS[name].paths).steps
    keys = [block_key(step.block, step.stride, (96, 160)) for step in steps] + [head_key(TASKS[name], SPACE, (96, 160))]
    assert milliseconds(name).one(choices) == pytest.approx(sum(made_up([key])[key] for key in keys))
    assert milliseconds(name).unit == "ms"


def test_a_block_without_a_measured_time_is_an_error() -> None:
    def incomplete(keys: Sequence[str]) -> Mapping[str, float]:
        return dict.fromkeys(keys[:-2], 1.0)

    def refusing(keys: Sequence[str]) -> Mapping[str, float]:
        raise UserError(f"no time for {keys[0]}")

    with pytest.raises(KeyError):
        latency_table(SPACE, TASKS["cls"], SMALL, incomplete)
    with pytest.raises(UserError, match="no time for stem_c16@64x64"):
        latency_table(SPACE, TASKS["cls"], SMALL, refusing)


def test_each_time_is_asked_for_once() -> None:
    asked: list[str] = []

    def recording(keys: Sequence[str]) -> Mapping[str, float]:
        asked.extend(keys)
        return made_up(keys)

    latency_table(SPACE, TASKS["cls"], SMALL, recording)
    assert len(asked) == len(set(asked))


MACS_400 = Budget(limit=400e6, unit="macs")
BUDGETS: dict[str, tuple[str, str, tuple[Budget, Budget]]] = {
    "one for all": ("400M", "macs", (MACS_400, MACS_400)),
    "own size": (
        "det=1.2G@320x640,400M",
        "macs",
        (MACS_400, Budget(limit=1.2e9, unit="macs", resolution=(320, 640))),
    ),
    "default first": ("400M, det=500K", "macs", (MACS_400, Budget(limit=500e3, unit="macs"))),
    "all named": ("det=1G,cls=400M", "macs", (MACS_400, Budget(limit=1e9, unit="macs"))),
    "square": ("400M@256", "macs", (Budget(limit=400e6, unit="macs", resolution=(256, 256)),) * 2),
    "milliseconds": ("8ms", "ms", (Budget(limit=8.0, unit="ms"),) * 2),
    "other times": ("cls=500us,0.25s", "ms", (Budget(limit=0.5, unit="ms"), Budget(limit=250.0, unit="ms"))),
}
NO_AMOUNT = "is not a positive number with its unit, such as 400M or 1.2G multiply-adds"
BAD_BUDGETS = {
    "no unit": ("400", NO_AMOUNT),
    "negative": ("-1M", NO_AMOUNT),
    "zero": ("0.0M", NO_AMOUNT),
    "nothing": ("", NO_AMOUNT),
    "bits": ("1Mb", NO_AMOUNT),
    "no number": ("M", NO_AMOUNT),
    "not a number": ("nan", NO_AMOUNT),
    "infinite": ("infM", NO_AMOUNT),
    "lower case": ("400m", NO_AMOUNT),
    "a time": ("8ms", NO_AMOUNT),
    "empty part": ("400M,", NO_AMOUNT),
    "other digits": ("٤M", NO_AMOUNT),
    "task left out": ("det=400M", "leaves out cls; add a part without a name for the others"),
    "unknown task": ("depth=400M,400M", "this run has no task 'depth'; it has: cls, det"),
    "empty name": ("=400M", "this run has no task ''"),
    "task twice": ("det=1M,det=2M,3M", "sets det twice"),
    "default twice": ("400M,500M", "sets the default twice"),
    "odd size": ("400M@100x100", "resolution 100x100: height and width must be multiples of 32"),
    "no size": ("400M@", "resolution '' is not HEIGHTxWIDTH"),
}


@pytest.mark.parametrize(("text", "unit", "expected"), BUDGETS.values(), ids=BUDGETS)
def test_budgets_are_read(text: str, unit: str, expected: tuple[Budget, Budget]) -> None:
    found = parse_budgets(text, unit=unit, tasks=("cls", "det"))
    assert list(found) == ["cls", "det"]
    for budget, wanted in zip(found.values(), expected, strict=True):
        assert budget.limit == pytest.approx(wanted.limit)
        assert (budget.unit, budget.resolution) == (wanted.unit, wanted.resolution)


@pytest.mark.parametrize(("text", "message"), BAD_BUDGETS.values(), ids=BAD_BUDGETS)
def test_budgets_that_cannot_be_read_say_why(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_budgets(text, unit="macs", tasks=("cls", "det"))
    assert message in str(caught.value)


def test_multiply_adds_are_no_time() -> None:
    with pytest.raises(UserError, match=r"budget '400M' is not a positive number with its unit, such as 8ms"):
        parse_budgets("400M", unit="ms", tasks=("cls",))


@pytest.mark.parametrize(("text", "size"), [("224", (224, 224)), (" 320x640 ", (320, 640))])
def test_resolutions_are_height_by_width(text: str, size: Resolution) -> None:
    assert parse_resolution(text) == size


@pytest.mark.parametrize("text", ["", "x", "224x", "224X224", "-32", "0", "224x100", "3.2", "99968"])
def test_other_resolutions_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="resolution"):
        parse_resolution(text)


def test_a_resolution_too_large_to_count_is_refused() -> None:
    with pytest.raises(UserError, match="multiples of 32 up to"):
        check_resolution((32 * 10**14, 32))


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(398.21e6, "macs", "398.2M"), (7.912, "ms", "7.91 ms"), (1234.0, "ms", "1230 ms"), (0.01234, "ms", "0.0123 ms")],
)
def test_costs_are_written_with_their_unit(value: float, unit: str, text: str) -> None:
    assert format_cost(value, unit) == text
