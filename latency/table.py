"""A latency lookup table: what each block took on one device, and the sum of a network's blocks.

The worst failure of such tables elsewhere is silent: a block without an entry that counts as 0 ms, a figure edited by
hand, a table of another machine. Each is an error here. Times are milliseconds a call at the table's batch size.

A table keeps each block's time alone, the whole networks that were measured, and the block costs corrected on them.
What it adds up are the corrected costs, or the times alone where no network was measured or correcting did not help.

File: ``luts/DEVICE-PRECISION-bN.json``, with ``-tN`` after it for more than one thread; schema 2.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from export.errors import UnavailableError, UserError
from latency.correction import Correction, Errors, MeasuredNetwork, Report, correct
from latency.devices import fingerprint
from latency.parsing import count, mapping, number, read_sealed, record, text, write_sealed
from latency.protocol import Measurement, Timing

SCHEMA = 2


NULL_KEY = "null"
"""Of the entry of a graph that does nothing: what every call costs before any block runs."""


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
    """Blocks timed alone, by a key that names everything that changes the time; and ``NULL_KEY``."""
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
    def unit(self) -> str:
        """Of the values, as it is printed."""
        return "ms"

    @property
    def isolated_ms(self) -> dict[str, float]:
        """The median of every block timed alone, in ms."""
        return {key: entry.latency_ms_median for key, entry in self.entries.items() if key != NULL_KEY}

    @property
    def overhead_ms(self) -> float:
        """What a call costs that does nothing, in ms."""
        return self.entries[NULL_KEY].latency_ms_median

    @property
    def unstable(self) -> list[str]:
        """The blocks and networks that varied by more than the protocol allows, for all their further rounds."""
        measured = {**self.entries, **{name: network.measured for name, network in self.networks.items()}}
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
                "resolution, tasks and images that are meant"
            )
        return {key: values[key] for key in wanted}

    def corrected(self) -> "LatencyTable":
        """This table with its blocks corrected on its networks; as it is where it has none.

        Raises:
            UserError: the networks are too few, or one has a block without an entry.
        """
        if not self.networks:
            return self
        return replace(self, correction=correct(self.isolated_ms, list(self.networks.values())))

    def save(self, path: Path) -> None:
        """Write the table, whole or not at all."""
        content = asdict(self)
        content["entries"] = dict(sorted(content["entries"].items()))
        write_sealed(path, content, schema=SCHEMA)

    @classmethod
    def load(cls, path: Path, *, device: str | None = None, foreign: bool = False) -> "LatencyTable":
        """Read a table and check it.

        Args:
            path: the file.
            device: whose table it must be; None for any.
            foreign: accept a table that was measured on another machine with such a device.

        Raises:
            UserError: missing, damaged or edited, of another device, or of another machine and not ``foreign``.
        """
        table = _parse(read_sealed(path, cls, what="latency table", schema=SCHEMA), f"latency table {path}")
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
        """
        table = cls.load(path)
        if path.stem != table.name:
            raise UserError(
                f"{path} holds the table {table.name}, another precision, batch or thread count than it is named for. "
                "Name it with --table if it is meant"
            )
        return table


def _check_machine(table: LatencyTable, path: Path) -> None:
    """Raise UserError if ``table`` was measured on another device of its name than the one that is here.

    Where none is here, the table is of a device elsewhere, and whoever names that device means it.
    """
    try:
        here = fingerprint(table.device, threads=table.threads)
    except UnavailableError:
        return
    for name in sorted(here.keys() | table.fingerprint.keys()):
        there = table.fingerprint.get(name)
        if there != here.get(name):
            raise UserError(
                f"latency table {path} is of another machine: {name} is {there!r} there and {here.get(name)!r} here. "
                f"Profile this machine into another folder (--luts), or name this table with --table if it is meant"
            )


def _parse(document: Mapping[str, Any], where: str) -> LatencyTable:
    """Raise UserError naming the field or key where ``document`` is not a table."""
    return LatencyTable(
        device=text(document["device"], f"'device' in {where}"),
        precision=text(document["precision"], f"'precision' in {where}"),
        batch=count(document["batch"], f"'batch' in {where}"),
        threads=count(document["threads"], f"'threads' in {where}"),
        fingerprint=dict(mapping(document["fingerprint"], f"'fingerprint' in {where}")),
        timing=_timing(document["timing"], f"'timing' in {where}"),
        entries={
            key: measurement(value, f"block {key!r} in {where}")
            for key, value in mapping(document["entries"], f"'entries' in {where}").items()
        },
        networks={
            name: _network(value, f"network {name!r} in {where}")
            for name, value in mapping(document["networks"], f"'networks' in {where}").items()
        },
        correction=None if document["correction"] is None else _correction(document["correction"], where),
        conditions=_conditions(document["conditions"], f"'conditions' in {where}"),
    )


def _conditions(value: Any, what: str) -> tuple[dict[str, Any], ...]:
    if not isinstance(value, list):
        raise UserError(f"{what} is not a list: {value!r}")
    return tuple(mapping(one, what) for one in value)


def _timing(value: Any, what: str) -> Timing:
    entry = record(value, what, Timing)
    return Timing(
        repeats=count(entry["repeats"], what),
        min_runs=count(entry["min_runs"], what),
        warmup_ms=number(entry["warmup_ms"], what),
        min_ms=number(entry["min_ms"], what),
        max_cv=number(entry["max_cv"], what),
        yardstick_ms=number(entry["yardstick_ms"], what),
    )


def measurement(value: Any, what: str) -> Measurement:
    """The measurement whose ``asdict`` is ``value``; raises UserError naming ``what`` if it is none."""
    entry = record(value, what, Measurement)
    return Measurement(
        latency_ms_median=number(entry["latency_ms_median"], what, positive=True),
        latency_ms_p90=number(entry["latency_ms_p90"], what, positive=True),
        latency_ms_p99=number(entry["latency_ms_p99"], what, positive=True),
        runs=count(entry["runs"], what),
        cv=number(entry["cv"], what),
        drift=number(entry["drift"], what),
    )


def _network(value: Any, what: str) -> MeasuredNetwork:
    entry = record(value, what, MeasuredNetwork)
    return MeasuredNetwork(
        blocks={key: count(times, what) for key, times in mapping(entry["blocks"], what).items()},
        macs=count(entry["macs"], what),
        measured=measurement(entry["measured"], what),
    )


def _correction(value: Any, where: str) -> Correction:
    what = f"'correction' in {where}"
    entry = record(value, what, Correction)
    costs = mapping(entry["latency_ms"], what)
    return Correction(
        latency_ms={key: number(cost, f"block {key!r} of {what}") for key, cost in costs.items()},
        strength=number(entry["strength"], what),
        fitted_on=count(entry["fitted_on"], what),
        held_out=_report(entry["held_out"], what),
    )


def _report(value: Any, what: str) -> Report:
    entry = record(value, what, Report)
    return Report(
        networks=count(entry["networks"], what),
        predicted=_errors(entry["predicted"], what),
        isolated=_errors(entry["isolated"], what),
        flops=None if entry["flops"] is None else _errors(entry["flops"], what),
        noise=number(entry["noise"], what),
    )


def _errors(value: Any, what: str) -> Errors:
    entry = record(value, what, Errors)
    for name in ("mape", "within_5", "within_10"):
        number(entry[name], what)
    for name in ("bias", "kendall_tau"):
        number(entry[name], what, signed=True)
    return Errors(**{name: float(number) for name, number in entry.items()})
