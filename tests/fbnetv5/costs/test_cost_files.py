import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from export.errors import UserError
from fbnetv5.costs.budgets import Budget
from fbnetv5.costs.constraints import cost_table
from fbnetv5.costs.cost_files import CostFile, file_table, open_costs, unused_text, write_template
from fbnetv5.costs.tables import Counter, block_key, table_keys
from fbnetv5.data.scenes import CLASSES
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.tasks import make_tasks
from tools.write_schemas import FOLDER

SPACE, SIZE = FourPathSpace(stages=1, blocks_per_path=1), (64, 64)
TASKS = make_tasks(("cls", "seg"), CLASSES)
KEYS = table_keys(SPACE, TASKS["cls"], SIZE)
DOCUMENT: dict[str, Any] = {"schema": 1, "kind": "cost", "name": "energy", "unit": "mJ", "values": {}}


def write(path: Path, **fields: Any) -> Path:
    path.write_text(json.dumps(DOCUMENT | fields), encoding="utf-8")
    return path


def test_a_network_costs_the_sum_over_its_blocks_and_its_head() -> None:
    """With each block's multiply-adds as values the sums are those of the counter."""
    counter, task = Counter(SIZE), TASKS["seg"]
    macs = counter.table(SPACE, task, "macs")
    values = {
        block_key(block, node.stride, SIZE): float(counter.block(block, node.stride).macs)
        for node in SPACE.nodes
        for block in node.candidates
    }
    values[table_keys(SPACE, task, SIZE)[-1]] = macs.fixed_head
    table = file_table(SPACE, task, SIZE, CostFile(name="work", unit="MAC", values=dict(values)))
    drawn = np.random.default_rng(0).integers(2, size=(20, len(SPACE.variables)))
    np.testing.assert_array_equal(table(drawn), macs(drawn))
    assert table.unit == "work_MAC"


def test_the_table_of_a_budget_is_that_of_its_file() -> None:
    files = [CostFile(name=name, unit="MB", values=dict.fromkeys(KEYS, value)) for name, value in (("a", 1), ("b", 3))]
    tables = [
        cost_table(SPACE, TASKS["cls"], Budget(limit=5.0, unit=file.key, resolution=SIZE), None, files)
        for file in files
    ]
    assert tables[1].max_cost == 3 * tables[0].max_cost > 0


def test_a_template_lists_every_key_and_keeps_what_is_filled_in(tmp_path: Path) -> None:
    path = tmp_path / "energy.json"
    missing = write_template(path, SPACE, [TASKS["cls"]], SIZE)
    assert missing == KEYS
    with pytest.raises(UserError, match=r"energy\.json has no name and no unit: fill in"):
        CostFile.load(path)
    write(path, values=dict.fromkeys(KEYS, 0.5))
    assert write_template(path, SPACE, TASKS.values(), SIZE) == [
        key for key in table_keys(SPACE, TASKS["seg"], SIZE) if key not in KEYS
    ]
    cost = CostFile.load(path)
    assert (cost.name, cost.values[KEYS[0]]) == ("energy", 0.5)
    schema = json.loads((FOLDER / "cost.json").read_text(encoding="utf-8"))
    assert schema == CostFile.schema_of_files(), "run: python tools/write_schemas.py"
    Draft202012Validator(schema).validate(json.loads(path.read_text(encoding="utf-8")))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "another kind": ({"kind": "measured"}, "is no cost file: its kind is 'measured', not 'cost'"),
    "a later schema": ({"schema": 2}, "has schema 2; this version reads schema 1"),
    "no name": ({"name": "two words"}, "name: must be up to 31 letters, digits and hyphens"),
    "an odd unit": ({"unit": "J/s"}, "unit: must be up to 12 letters and digits, such as 'mJ' or 'MB', not 'J/s'"),
    "an unknown field": ({"device": "cpu"}, "there is no field 'device'"),
    "a list": ({"values": [1.0]}, "values must be an object with a number per key, not list"),
    "not a cost": (
        {"values": {"a": -1, "b": float("nan"), "c": True, "d": "3", "e": 1.0, "f": float("inf")}},
        "5 of 6 values are no finite numbers of 0 or more, first: a: -1, b: nan, c: True",
    ),
}


@pytest.mark.parametrize(("fields", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        CostFile.load(write(tmp_path / "energy.json", **fields))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_template_is_not_added_to_a_wrong_file(tmp_path: Path) -> None:
    path = write(tmp_path / "energy.json", values={"a": "x"})
    with pytest.raises(UserError, match=r"cost file .*energy\.json is refused: 1 of 1 values are no finite numbers"):
        write_template(path, SPACE, [TASKS["cls"]], SIZE)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "energy.json")
    path.write_text(path.read_text(encoding="utf-8")[:-5], encoding="utf-8")
    with pytest.raises(UserError, match="is not valid JSON"):
        CostFile.load(path)


def test_missing_and_unused_keys_are_counted_and_named() -> None:
    values = {**dict.fromkeys(KEYS, 1.0), KEYS[2]: None, "ir_k9@8x8": 1.0}
    cost = CostFile(name="energy", unit="mJ", values={key: values[key] for key in values if key != KEYS[4]})
    message = f"no value for 2 of the {len(KEYS)} blocks and heads of the networks, first: {KEYS[2]}, {KEYS[4]}. Fill"
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        file_table(SPACE, TASKS["cls"], SIZE, cost)
    unused = unused_text(cost, SPACE, [(TASKS["cls"], SIZE)])
    assert unused == "1 keys of the cost file of energy are of no block of this search and not used: ir_k9@8x8"
    assert unused_text(cost.changed(values={}), SPACE, []) == ""


def test_a_folder_does_not_hide_the_cost_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    energy = CostFile.load(write(tmp_path / "energy.json"))
    monkeypatch.chdir(tmp_path)
    Path("energy").mkdir()
    assert open_costs({"energy": "3mJ"}, [energy]) == ((energy,), {"energy_mJ": "3mJ"})


def test_costs_are_opened_by_file_or_by_the_name_that_a_run_knows(tmp_path: Path) -> None:
    energy = CostFile.load(path := write(tmp_path / "energy.json"))
    assert open_costs({path: 5.0}) == ((energy,), {"energy_mJ": 5.0})
    assert open_costs({"energy": "3mJ"}, [energy]) == ((energy,), {"energy_mJ": "3mJ"})
    assert open_costs(None) == ((), {})
    assert open_costs({path: 5.0}, memory="8MB") == ((energy,), {"energy_mJ": 5.0, "bytes": "8MB"})
    with pytest.raises(UserError, match="power is neither a cost file nor a cost of the run, which has: energy"):
        open_costs({"power": 1.0}, [energy])
    with pytest.raises(UserError, match=r"other\.json is a second cost file of energy"):
        open_costs({path: 5.0, write(tmp_path / "other.json", unit="J"): 2.0})
