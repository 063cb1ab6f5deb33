"""Latency lookup tables: the time of each block on one device, and the sum over the blocks of a network.

The worst failure of such tables elsewhere is silent: a block without an entry that counts as 0 ms, a figure edited by
hand, a table of another machine. Each is an error here. Times are milliseconds a call at the table's batch size.

A table contains the standalone time of each block, the whole networks that were measured, and the block costs corrected
on these networks. It adds up the corrected costs, or the standalone times where no network was measured or the
correction did not help.

File: ``luts/DEVICE-PRECISION-bN.json``, with ``-tN`` after it for more than one thread, and with the runtime after the
device if it is not the device's usual one (``h100-torch-fp16-b1.json``); schema 3. Schema 2 is read too
(``latency/upgrade.py``).
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, Strict

from export.document import Document
from export.errors import UnavailableError, UserError
from export.files import read_json_object
from latency.backends import runtime_fingerprint
from latency.checksum import checked, write_checksummed
from latency.correction import Correction, MeasuredNetwork, correct
from latency.devices import usual_runtime
from latency.records import CheckedMeasurement, CheckedTiming, Count
from latency.runtimes.tensorrt import TENSORRT
from latency.upgrade import upgrade_table

SCHEMA = 3

MEASURED = "measured"
ESTIMATED = "estimated"

NULL_KEY = "null"
"""Key of the entry of an empty graph, which does nothing: the overhead of every call."""


def table_path(
    folder: Path,
    device: str,
    precision: str = "fp32",
    batch: int = 1,
    threads: int = 1,
    *,
    runtime: str | None = None,
) -> Path:
    """The path of the measured table of these settings; without a runtime, of the usual runtime of the device."""
    return folder / f"{_table_name(device, precision, batch, threads, runtime or usual_runtime(device))}.json"


def measured_tables(folder: Path, device: str) -> list[Path]:
    """The measured tables of a device in a folder that are of its usual runtime, without the estimated ones."""
    documents = {path: read_json_object(path, what="latency table") for path in sorted(folder.glob(f"{device}-*.json"))}
    usual = usual_runtime(device)
    return [
        path
        for path, document in documents.items()
        if kind_of(document) == MEASURED
        and isinstance(fingerprint := document.get("fingerprint", {}), Mapping)
        and _runtime_of(fingerprint, usual) == usual
    ]


def _runtime_of(fingerprint: Mapping[str, Any], usual: str) -> str:
    """The runtime of a fingerprint; TensorRT for RTX counts as TensorRT."""
    runtime = str(fingerprint.get("runtime", usual))
    return TENSORRT if runtime == "tensorrt_rtx" else runtime


def kind_of(content: Mapping[str, Any]) -> str:
    """The kind of a table's document, ``MEASURED`` or ``ESTIMATED``; earlier versions have no field for it."""
    return str(content.get("kind", ESTIMATED if "peak_tflops" in content else MEASURED))


def _table_name(device: str, precision: str, batch: int, threads: int, runtime: str) -> str:
    measured_with = "" if runtime == usual_runtime(device) else f"{runtime}-"
    return f"{device}-{measured_with}{precision}-b{batch}" + (f"-t{threads}" if threads > 1 else "")


class LatencyTable(Document):
    """Measured blocks of one device. Entries are never guessed: a missing key raises."""

    title: ClassVar[str] = "latency table"
    kind: Literal["measured"] = "measured"
    device: str
    precision: str = "fp32"
    batch: Count = 1
    threads: Count = 1
    """CPU threads one operator may use."""
    fingerprint: dict[str, str | int]
    """The machine and runtime of the measurements."""
    timing: CheckedTiming
    """The measuring protocol."""
    entries: dict[str, CheckedMeasurement]
    """Standalone blocks, by a key that names everything that changes the time; and ``NULL_KEY``."""
    networks: dict[str, Annotated[MeasuredNetwork, Strict(False)]] = Field(default_factory=dict)
    """Whole networks, by key."""
    correction: Annotated[Correction, Strict(False)] | None = None
    """Fitted on ``networks``; None where too few were measured."""
    conditions: Annotated[tuple[dict[str, Any], ...], Strict(False)] = ()
    """Date and state of the device (load, clocks, heat) of each profile that added to the table."""

    @property
    def name(self) -> str:
        """The name of the table's file, without its suffix."""
        return _table_name(self.device, self.precision, self.batch, self.threads, self.runtime)

    @property
    def runtime(self) -> str:
        """The runtime of the measurements; TensorRT for RTX counts as TensorRT, which the fingerprint tells apart."""
        return _runtime_of(self.fingerprint, usual_runtime(self.device))

    @property
    def values_kind(self) -> str:
        """What ``values_ms`` returns: "corrected" or "standalone" values."""
        return "corrected" if self.correction is not None and self.correction.helps else "standalone"

    @property
    def unit(self) -> str:
        """The unit of the values, as it is printed."""
        return "ms"

    @property
    def standalone_ms(self) -> dict[str, float]:
        """The median time of every standalone block, in ms."""
        return {key: entry.latency_ms_median for key, entry in self.entries.items() if key != NULL_KEY}

    @property
    def overhead_ms(self) -> float:
        """The time of a call that does nothing, in ms."""
        return self.entries[NULL_KEY].latency_ms_median

    @property
    def unstable(self) -> list[str]:
        """The blocks and networks that varied by more than the protocol allows, after the further repetitions too."""
        measurements = {**self.entries, **{key: network.measurement for key, network in self.networks.items()}}
        return [key for key, measurement in measurements.items() if measurement.cv > self.timing.max_cv]

    def total_ms(self, keys: Iterable[str]) -> float:
        """The sum over ``keys``, in ms; a key given twice counts twice.

        Raises:
            UserError: a key has no entry.
        """
        keys = list(keys)
        values = self.values_ms(keys)
        return math.fsum(values[key] for key in keys)

    def values_ms(self, keys: Iterable[str]) -> dict[str, float]:
        """What each of ``keys`` adds to a network, in ms: corrected where the correction helps, else standalone.

        Raises:
            UserError: a key has no entry.
        """
        keys = list(dict.fromkeys(keys))
        values = self.standalone_ms
        if self.correction is not None and self.correction.helps:
            values.update(self.correction.latency_ms)
        if missing := self.missing(keys):
            raise UserError(
                f"{len(missing)} of {len(keys)} blocks have no entry in the {self.device} table, first: "
                f"{missing[0]}. Measure them with: {self.command}, with the variant, stages, resolution, tasks and "
                "images of the search"
            )
        return {key: values[key] for key in keys}

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of ``keys`` without an entry, each once."""
        return [key for key in dict.fromkeys(keys) if key not in self.entries or key == NULL_KEY]

    @property
    def command(self) -> str:
        """The command that extends the table."""
        options = {
            "--runtime": None if self.runtime == usual_runtime(self.device) else self.runtime,
            "--precision": None if self.precision == "fp32" else self.precision,
            "--threads": None if self.threads == 1 else self.threads,
        }
        texts = [f" {option} {value}" for option, value in options.items() if value is not None]
        return f"fbnetv5 profile --device {self.device}{''.join(texts)}"

    def corrected(self) -> "LatencyTable":
        """This table with block costs corrected on its networks; unchanged where it has no networks.

        Raises:
            UserError: the networks are too few, or a network has a block without an entry.
        """
        if not self.networks:
            return self
        return self.changed(correction=correct(self.standalone_ms, list(self.networks.values())))

    def save(self, path: Path) -> None:
        """Write the table atomically."""
        content = self.to_json()
        content["entries"] = dict(sorted(content["entries"].items()))
        write_checksummed(path, content, schema=SCHEMA)

    @classmethod
    def load(cls, path: Path, *, device: str | None = None, other_machine: bool = False) -> "LatencyTable":
        """Read a table and check it.

        Args:
            path: the file.
            device: the device the table must be of; None for any.
            other_machine: accept a table that was measured on another machine with such a device.

        Raises:
            UserError: missing, damaged or edited, of another device, or of another machine and not ``other_machine``.
        """
        document = read_json_object(path, what="latency table")
        return cls.of_document(document, path, device=device, other_machine=other_machine)

    @classmethod
    def of_document(
        cls, document: Mapping[str, Any], path: Path, *, device: str | None = None, other_machine: bool = False
    ) -> "LatencyTable":
        """The table of a document that was read from ``path``; arguments and errors as in ``load``."""
        schema, content = checked(document, path, what="latency table", schema=(2, SCHEMA))
        if kind_of(content) != MEASURED or not content.keys() >= {
            "fingerprint",
            "entries",
            "networks",
            "timing",
            "correction",
        }:
            raise UserError(f"{path} is not a measured latency table")
        try:
            table = cls(**(upgrade_table(content) if schema == 2 else content))
        except UserError as error:
            raise UserError(f"{path} is damaged: {error}") from None
        if device not in (None, table.device):
            raise UserError(f"latency table {path} is of device {table.device!r}, not {device!r}")
        if not other_machine:
            _check_machine(table, path)
        return table

    def check_name(self, path: Path) -> "LatencyTable":
        """This table; raises UserError if the file at ``path`` has the name of another table."""
        if path.stem != self.name:
            raise UserError(
                f"{path} contains the table {self.name}, with another runtime, precision, batch or thread "
                "count than its name. "
                "Name it with --table to use it all the same"
            )
        return self


def _check_machine(table: LatencyTable, path: Path) -> None:
    """Raise UserError if ``table`` was measured on another machine than this one.

    Without such a device on this machine, the table is of a remote device, and the user who names that device means it.
    """
    try:
        local = runtime_fingerprint(table.device, runtime=table.runtime, threads=table.threads)
    except UnavailableError:
        return
    for name in sorted(local.keys() | table.fingerprint.keys()):
        measured = table.fingerprint.get(name)
        if measured != local.get(name):
            raise UserError(
                f"latency table {path} is of another machine: {name} is {measured!r} there and {local.get(name)!r} "
                "here. Profile this machine into another folder (--luts), or name this table with --table to use it "
                "all the same"
            )
