"""A latency lookup table: what each block took on one device, and the sum of a network's blocks.

The worst failure of such tables elsewhere is silent: a block without an entry that counts as 0 ms, a figure edited by
hand, a table of another machine. Each is an error here. Times are milliseconds a call at the table's batch size.

File: ``luts/DEVICE-PRECISION-bN.json``, schema 1.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from export.errors import UserError
from export.files import read_json, write_json
from latency.devices import resolve
from latency.protocol import Measurement, Timing

SCHEMA = 1


def table_name(device: str, precision: str, batch: int) -> str:
    """What the table of these is called."""
    return f"{device}-{precision}-b{batch}"


def table_path(folder: Path, device: str, precision: str = "fp32", batch: int = 1) -> Path:
    """Where the table of these is kept."""
    return folder / f"{table_name(device, precision, batch)}.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyTable:
    """Measured blocks of one device. Entries are never guessed: a missing key raises."""

    device: str
    precision: str = "fp32"
    batch: int = 1
    threads: int = 1
    """Processor threads one operator may use."""
    fingerprint: dict[str, str | int]
    """The machine it was measured on."""
    timing: Timing
    entries: dict[str, Measurement]
    """By block key, which names everything that changes the block's time."""

    def value_ms(self, key: str) -> float:
        """The median of one block, in ms."""
        return self.total_ms((key,))

    @property
    def name(self) -> str:
        """Of the table's file, without its ending."""
        return table_name(self.device, self.precision, self.batch)

    def total_ms(self, keys: Iterable[str]) -> float:
        """The sum of the medians of ``keys``, in ms; a key given twice counts twice.

        Raises:
            UserError: a key has no entry.
        """
        wanted = list(keys)
        values = self.values_ms(wanted)
        return math.fsum(values[key] for key in wanted)

    def values_ms(self, keys: Iterable[str]) -> dict[str, float]:
        """The median of each of ``keys``, in ms.

        Raises:
            UserError: a key has no entry.
        """
        wanted = list(keys)
        if missing := [key for key in dict.fromkeys(wanted) if key not in self.entries]:
            raise UserError(
                f"{len(missing)} of {len(set(wanted))} blocks have no entry in the {self.device} table, first: "
                f"{missing[0]}. Measure them with: fbnetv5 profile --device {self.device}"
            )
        return {key: self.entries[key].latency_ms_median for key in wanted}

    def save(self, path: Path) -> None:
        """Write the table, whole or not at all."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        content["timing"] = asdict(self.timing)
        content["entries"] = {key: asdict(entry) for key, entry in sorted(self.entries.items())}
        write_json(path, {"schema": SCHEMA, **content, "sha256": _checksum(content)})

    @classmethod
    def load(cls, path: Path, *, device: str | None = None, foreign: bool = False) -> "LatencyTable":
        """Read a table and check it.

        Args:
            path: the file.
            device: whose table it must be; None for any.
            foreign: accept a table that was measured on another machine.

        Raises:
            UserError: missing, damaged or edited, of another device, or of another machine and not ``foreign``.
            NotHere: the device is not on this machine and the table is not ``foreign``.
        """
        document = read_json(path, what="latency table", schema=SCHEMA)
        table = _parse(document, path)
        if document.get("sha256") != _checksum(document):
            raise UserError(
                f"latency table {path} was edited or damaged: checksums differ. Delete it and profile again"
            )
        if device not in (None, table.device):
            raise UserError(f"latency table {path} is of device {table.device!r}, not {device!r}")
        if not foreign:
            _check_machine(table, path)
        return table


def _check_machine(table: LatencyTable, path: Path) -> None:
    """Raise UserError if ``table`` was measured on another machine than this."""
    here = resolve(table.device).fingerprint(threads=table.threads)
    for name in sorted(here.keys() | table.fingerprint.keys()):
        there = table.fingerprint.get(name)
        if there != here.get(name):
            raise UserError(
                f"latency table {path} is of another machine: {name} is {there!r} there and {here.get(name)!r} here. "
                f"Profile this one into another file, or say that a foreign table is meant"
            )


def _checksum(content: Mapping[str, Any]) -> str:
    """sha256 of all but the schema and the checksum itself, whatever their order and spacing."""
    body = {key: value for key, value in content.items() if key not in ("schema", "sha256")}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _parse(document: Mapping[str, Any], path: Path) -> LatencyTable:
    """Raise UserError naming the field or key where ``document`` is not a table."""
    known = {field.name for field in fields(LatencyTable)}
    where = f"latency table {path}"
    if wrong := sorted(known - document.keys()) or sorted(document.keys() - known - {"schema", "sha256"}):
        raise UserError(f"{where} lacks or does not know {wrong[0]!r}: it is damaged. Delete it and profile again")
    return LatencyTable(
        device=_text(document["device"], f"'device' in {where}"),
        precision=_text(document["precision"], f"'precision' in {where}"),
        batch=_count(document["batch"], f"'batch' in {where}"),
        threads=_count(document["threads"], f"'threads' in {where}"),
        fingerprint=dict(_mapping(document["fingerprint"], f"'fingerprint' in {where}")),
        timing=_timing(document["timing"], f"'timing' in {where}"),
        entries={
            key: _measurement(value, f"block {key!r} in {where}")
            for key, value in _mapping(document["entries"], f"'entries' in {where}").items()
        },
    )


def _timing(value: Any, what: str) -> Timing:
    entry = _mapping(value, what, names={field.name for field in fields(Timing)})
    return Timing(
        repeats=_count(entry["repeats"], what),
        min_runs=_count(entry["min_runs"], what),
        warmup_ms=_number(entry["warmup_ms"], what),
        min_ms=_number(entry["min_ms"], what),
    )


def _measurement(value: Any, what: str) -> Measurement:
    entry = _mapping(value, what, names={field.name for field in fields(Measurement)})
    return Measurement(
        latency_ms_median=_number(entry["latency_ms_median"], what, positive=True),
        latency_ms_p90=_number(entry["latency_ms_p90"], what, positive=True),
        latency_ms_p99=_number(entry["latency_ms_p99"], what, positive=True),
        runs=_count(entry["runs"], what),
        cv=_number(entry["cv"], what),
    )


def _mapping(value: Any, what: str, names: set[str] | None = None) -> dict[str, Any]:
    if not isinstance(value, dict) or (names is not None and value.keys() != names):
        raise UserError(f"{what} is not {'an object' if names is None else f'an object of {sorted(names)}'}: {value!r}")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise UserError(f"{what} is {value!r}, not a name")
    return value


def _count(value: Any, what: str) -> int:
    if type(value) is not int or value < 1:
        raise UserError(f"{what} is {value!r}, where a whole number of at least 1 is needed")
    return value


def _number(value: Any, what: str, *, positive: bool = False) -> float:
    least = "positive" if positive else "non-negative"
    if type(value) not in (int, float) or not math.isfinite(value) or value < 0 or (positive and value == 0):
        raise UserError(f"{what} is {value!r}, where a {least} finite number is needed")
    return float(value)
