"""A latency lookup table: what each block took on one device, and the sum of a network's blocks.

The worst failure of such tables elsewhere is silent: a block without an entry that counts as 0 ms, a figure edited by
hand, a table of another machine. Each is an error here. Times are milliseconds a call at the table's batch size.

A table keeps each block's time alone, the whole networks that were measured, and the block costs corrected on them.
What it adds up are the corrected costs, or the times alone where no network was measured or correcting did not help.

File: ``luts/DEVICE-PRECISION-bN.json``, with ``-tN`` after it for more than one thread; schema 2.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from export.errors import UserError
from export.files import read_json, write_json
from latency.correction import Correction, Errors, MeasuredNetwork, Report
from latency.devices import resolve
from latency.protocol import Measurement, Timing

SCHEMA = 2


NULL_KEY = "null"
"""Of the entry of a graph that does nothing: what every call costs before any block runs."""
YARDSTICK_KEY = "yardstick"
"""Of the entry of the graph that was timed beside all others; all other entries are given at its median."""


def table_path(folder: Path, device: str, precision: str = "fp32", batch: int = 1, threads: int = 1) -> Path:
    """Where the table of these is kept."""
    return folder / f"{_table_name(device, precision, batch, threads)}.json"


def _table_name(device: str, precision: str, batch: int, threads: int) -> str:
    return f"{device}-{precision}-b{batch}" + (f"-t{threads}" if threads > 1 else "")


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
    """Blocks timed alone, by a key that names everything that changes the time; ``NULL_KEY`` and ``YARDSTICK_KEY``."""
    networks: dict[str, MeasuredNetwork] = field(default_factory=dict)
    """Whole networks, by a name of their own."""
    correction: Correction | None = None
    """Fitted on ``networks``; None where too few were measured."""
    conditions: tuple[Mapping[str, Any], ...] = ()
    """What the device went through, and when, for each profile that added to the table."""

    @property
    def name(self) -> str:
        """Of the table's file, without its ending."""
        return _table_name(self.device, self.precision, self.batch, self.threads)

    @property
    def kind(self) -> str:
        """What the values are: "corrected" or "isolated"."""
        return "corrected" if self.correction is not None and self.correction.helps else "isolated"

    @property
    def isolated_ms(self) -> dict[str, float]:
        """The median of every block timed alone, in ms."""
        no_blocks = (NULL_KEY, YARDSTICK_KEY)
        return {key: entry.latency_ms_median for key, entry in self.entries.items() if key not in no_blocks}

    @property
    def overhead_ms(self) -> float:
        """What a call costs that does nothing, in ms."""
        return self.entries[NULL_KEY].latency_ms_median

    @property
    def yardstick_ms(self) -> float | None:
        """What the yardstick took while the table was measured; None where none was."""
        entry = self.entries.get(YARDSTICK_KEY)
        return None if entry is None else entry.latency_ms_median

    @property
    def unstable(self) -> list[str]:
        """The blocks and networks that varied by more than the protocol allows, for all their further rounds."""
        measured = {**self.entries, **{name: network.measured for name, network in self.networks.items()}}
        measured.pop(YARDSTICK_KEY, None)  # its variation is the machine's, which the others are freed of
        return [name for name, one in measured.items() if one.cv > self.timing.max_cv]

    def total_ms(self, keys: Iterable[str]) -> float:
        """The sum over ``keys``, in ms; a key given twice counts twice.

        Raises:
            UserError: a key has no entry.
        """
        wanted = list(keys)
        values = self.values_ms(wanted)
        return math.fsum(values[key] for key in wanted)

    def values_ms(self, keys: Iterable[str]) -> dict[str, float]:
        """What each of ``keys`` adds to a network, in ms: corrected where that helps, else timed alone.

        Raises:
            UserError: a key has no entry.
        """
        wanted = list(keys)
        values = self.isolated_ms
        if self.correction is not None and self.correction.helps:
            values.update(self.correction.latency_ms)
        if missing := [key for key in dict.fromkeys(wanted) if key not in values]:
            raise UserError(
                f"{len(missing)} of {len(set(wanted))} blocks have no entry in the {self.device} table, first: "
                f"{missing[0]}. Measure them with: fbnetv5 profile --device {self.device}, and the variant, stages, "
                "resolution, tasks and pictures that are meant"
            )
        return {key: values[key] for key in wanted}

    def save(self, path: Path) -> None:
        """Write the table, whole or not at all."""
        content = asdict(self)
        content["entries"] = dict(sorted(content["entries"].items()))
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

    @classmethod
    def load_kept(cls, path: Path) -> "LatencyTable":
        """Read the table of this machine that is kept at a ``table_path``.

        Raises:
            UserError: as ``load``; or the table is another than the file's name says.
            NotHere: as ``load``.
        """
        table = cls.load(path)
        if path.stem != table.name:
            raise UserError(
                f"{path} holds the table {table.name}, another precision, batch or thread count than it is named for. "
                "Name it with --table if it is meant"
            )
        return table


def _check_machine(table: LatencyTable, path: Path) -> None:
    """Raise UserError if ``table`` was measured on another machine than this."""
    here = resolve(table.device, precision=table.precision, threads=table.threads).fingerprint()
    for name in sorted(here.keys() | table.fingerprint.keys()):
        there = table.fingerprint.get(name)
        if there != here.get(name):
            raise UserError(
                f"latency table {path} is of another machine: {name} is {there!r} there and {here.get(name)!r} here. "
                f"Profile this machine into another folder (--luts), or name this table with --table if it is meant"
            )


def _checksum(content: Mapping[str, Any]) -> str:
    """sha256 of all but the schema and the checksum itself, whatever their order and spacing."""
    body = {key: value for key, value in content.items() if key not in ("schema", "sha256")}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _parse(document: Mapping[str, Any], path: Path) -> LatencyTable:
    """Raise UserError naming the field or key where ``document`` is not a table."""
    known = {one.name for one in fields(LatencyTable)}
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
        networks={
            name: _network(value, f"network {name!r} in {where}")
            for name, value in _mapping(document["networks"], f"'networks' in {where}").items()
        },
        correction=None if document["correction"] is None else _correction(document["correction"], where),
        conditions=_conditions(document["conditions"], f"'conditions' in {where}"),
    )


def _conditions(value: Any, what: str) -> tuple[dict[str, Any], ...]:
    if not isinstance(value, list):
        raise UserError(f"{what} is not a list: {value!r}")
    return tuple(_mapping(one, what) for one in value)


def _timing(value: Any, what: str) -> Timing:
    entry = _record(value, what, Timing)
    return Timing(
        repeats=_count(entry["repeats"], what),
        min_runs=_count(entry["min_runs"], what),
        warmup_ms=_number(entry["warmup_ms"], what),
        min_ms=_number(entry["min_ms"], what),
        max_cv=_number(entry["max_cv"], what),
        yardstick_ms=_number(entry["yardstick_ms"], what),
    )


def _measurement(value: Any, what: str) -> Measurement:
    entry = _record(value, what, Measurement)
    return Measurement(
        latency_ms_median=_number(entry["latency_ms_median"], what, positive=True),
        latency_ms_p90=_number(entry["latency_ms_p90"], what, positive=True),
        latency_ms_p99=_number(entry["latency_ms_p99"], what, positive=True),
        runs=_count(entry["runs"], what),
        cv=_number(entry["cv"], what),
        drift=_number(entry["drift"], what),
    )


def _network(value: Any, what: str) -> MeasuredNetwork:
    entry = _record(value, what, MeasuredNetwork)
    return MeasuredNetwork(
        blocks={key: _count(count, what) for key, count in _mapping(entry["blocks"], what).items()},
        macs=_count(entry["macs"], what),
        measured=_measurement(entry["measured"], what),
    )


def _correction(value: Any, where: str) -> Correction:
    what = f"'correction' in {where}"
    entry = _record(value, what, Correction)
    costs = _mapping(entry["latency_ms"], what)
    return Correction(
        latency_ms={key: _number(cost, f"block {key!r} of {what}") for key, cost in costs.items()},
        strength=_number(entry["strength"], what),
        fitted_on=_count(entry["fitted_on"], what),
        held_out=_report(entry["held_out"], what),
    )


def _report(value: Any, what: str) -> Report:
    entry = _record(value, what, Report)
    return Report(
        networks=_count(entry["networks"], what),
        predicted=_errors(entry["predicted"], what),
        isolated=_errors(entry["isolated"], what),
        flops=None if entry["flops"] is None else _errors(entry["flops"], what),
        noise=_number(entry["noise"], what),
    )


def _errors(value: Any, what: str) -> Errors:
    entry = _record(value, what, Errors)
    for name in ("mape", "within_5", "within_10"):
        _number(entry[name], what)
    for name in ("bias", "kendall_tau"):
        _number(entry[name], what, signed=True)
    return Errors(**{name: float(number) for name, number in entry.items()})


def _record(value: Any, what: str, kind: type[Any]) -> dict[str, Any]:
    """``value`` if it is an object with the fields of the dataclass ``kind``."""
    names = sorted(one.name for one in fields(kind))
    if not isinstance(value, dict) or sorted(value) != names:
        raise UserError(f"{what} is not an object of {names}: {value!r}")
    return value


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{what} is not an object: {value!r}")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise UserError(f"{what} is {value!r}, not a name")
    return value


def _count(value: Any, what: str) -> int:
    if type(value) is not int or value < 1:
        raise UserError(f"{what} is {value!r}, where a whole number of at least 1 is needed")
    return value


def _number(value: Any, what: str, *, positive: bool = False, signed: bool = False) -> float:
    sign = "positive " if positive else "" if signed else "non-negative "
    finite = type(value) in (int, float) and math.isfinite(value)
    if not finite or (value < 0 and not signed) or (value == 0 and positive):
        raise UserError(f"{what} is {value!r}, where a {sign}finite number is needed")
    return float(value)
