"""The Python interface: one function per command of ``fbnetv5``, which the command line itself calls.

    from fbnetv5 import api

    api.profile("cpu")                                           # measure a latency table
    result = api.search(latency="8ms", device="cpu", log=print)  # a network per task
    trained = api.train(arch=result.run / "det.json")
    api.export(trained.folder, output="shipped")
    boxes = api.load("shipped/det")("street.jpg")["det"]

Functions take plain values (paths, "400M" or numbers, names of tasks) and return frozen records, whose ``to_json`` is
the document that ``--json`` prints. They raise ``UserError`` for what the caller can correct; its subclass
``UnavailableError`` is for a device or library that is not on this machine, and ``VerificationError`` for a failed
check. They never print and never exit: ``log``, ``report`` and ``progress`` are optional callbacks. Nothing is kept
between two calls, except the state of torch's and numpy's random generators, which searches and trainings seed.

Names are imported on first use, so that ``import fbnetv5.api`` loads neither torch nor the command line.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from export.errors import UnavailableError, UserError, VerificationError
    from export.trt.check import CheckResult, check
    from fbnetv5.architecture import Architecture, load_architecture
    from fbnetv5.data.convert import ConvertResult, convert
    from fbnetv5.data.predictions import ClassScores, ProbabilityMap, ScoredBoxes
    from fbnetv5.deploy.derive import Derived, derive
    from fbnetv5.deploy.doctor import Diagnosis, doctor
    from fbnetv5.deploy.evaluate import EvaluateResult, evaluate
    from fbnetv5.deploy.export_command import IncompleteExportError, export
    from fbnetv5.deploy.exported import Exported
    from fbnetv5.deploy.latency_tables import (
        EstimateResult,
        MeasuredTable,
        ProfileBundle,
        ProfilePlan,
        profile,
        profile_bundle,
        profile_estimate,
        profile_import,
        profile_plan,
        profile_verify,
    )
    from fbnetv5.deploy.predict.command import predict
    from fbnetv5.deploy.predict.models import Predictor, load
    from fbnetv5.deploy.predict.predictions import ClassMap, DepthMap, NormalMap
    from fbnetv5.deploy.predict.run import PredictResult
    from fbnetv5.deploy.profile import Scope
    from fbnetv5.deploy.profile_scope import scope
    from fbnetv5.deploy.report.write import report
    from fbnetv5.deploy.show import NetworkDescription, show
    from fbnetv5.deploy.space import SpaceDescription, space
    from fbnetv5.deploy.validate import ValidateResult, validate
    from fbnetv5.evaluate import Comparison, Evaluation
    from fbnetv5.labeling.assemble import LabelSummary
    from fbnetv5.labeling.command import LabelPreview, label, preview_labels
    from fbnetv5.search.bmtas.command import BranchResult, branch, resume_branch
    from fbnetv5.search.nars.command import nars, resume_nars
    from fbnetv5.search.nars.run import NarsResult
    from fbnetv5.search.reinforce.command import SearchResult, search
    from fbnetv5.search.reinforce.later.command import add_task
    from fbnetv5.search.reinforce.resume import resume_search
    from fbnetv5.training.command import resume_train, train
    from fbnetv5.training.run import TrainResult
    from latency.verify import Verification

__all__ = [
    "Architecture",
    "BranchResult",
    "CheckResult",
    "ClassMap",
    "ClassScores",
    "Comparison",
    "ConvertResult",
    "DepthMap",
    "Derived",
    "Diagnosis",
    "EstimateResult",
    "EvaluateResult",
    "Evaluation",
    "Exported",
    "IncompleteExportError",
    "LabelPreview",
    "LabelSummary",
    "MeasuredTable",
    "NarsResult",
    "NetworkDescription",
    "NormalMap",
    "PredictResult",
    "Predictor",
    "ProbabilityMap",
    "ProfileBundle",
    "ProfilePlan",
    "Scope",
    "ScoredBoxes",
    "SearchResult",
    "SpaceDescription",
    "TrainResult",
    "UnavailableError",
    "UserError",
    "ValidateResult",
    "Verification",
    "VerificationError",
    "add_task",
    "branch",
    "check",
    "convert",
    "derive",
    "doctor",
    "evaluate",
    "export",
    "label",
    "load",
    "load_architecture",
    "nars",
    "predict",
    "preview_labels",
    "profile",
    "profile_bundle",
    "profile_estimate",
    "profile_import",
    "profile_plan",
    "profile_verify",
    "report",
    "resume_branch",
    "resume_nars",
    "resume_search",
    "resume_train",
    "scope",
    "search",
    "show",
    "space",
    "train",
    "validate",
]

_MODULES = {
    "export.errors": (
        "UnavailableError",
        "UserError",
        "VerificationError",
    ),
    "export.trt.check": (
        "CheckResult",
        "check",
    ),
    "fbnetv5.architecture": (
        "Architecture",
        "load_architecture",
    ),
    "fbnetv5.data.convert": (
        "ConvertResult",
        "convert",
    ),
    "fbnetv5.data.predictions": (
        "ClassScores",
        "ProbabilityMap",
        "ScoredBoxes",
    ),
    "fbnetv5.deploy.derive": (
        "Derived",
        "derive",
    ),
    "fbnetv5.deploy.doctor": (
        "Diagnosis",
        "doctor",
    ),
    "fbnetv5.deploy.evaluate": (
        "EvaluateResult",
        "evaluate",
    ),
    "fbnetv5.deploy.export_command": (
        "IncompleteExportError",
        "export",
    ),
    "fbnetv5.deploy.exported": ("Exported",),
    "fbnetv5.deploy.latency_tables": (
        "EstimateResult",
        "MeasuredTable",
        "ProfileBundle",
        "ProfilePlan",
        "profile",
        "profile_bundle",
        "profile_estimate",
        "profile_import",
        "profile_plan",
        "profile_verify",
    ),
    "fbnetv5.deploy.predict.command": ("predict",),
    "fbnetv5.deploy.predict.models": (
        "Predictor",
        "load",
    ),
    "fbnetv5.deploy.predict.predictions": (
        "ClassMap",
        "DepthMap",
        "NormalMap",
    ),
    "fbnetv5.deploy.predict.run": ("PredictResult",),
    "fbnetv5.deploy.profile_scope": ("scope",),
    "fbnetv5.deploy.profile": ("Scope",),
    "fbnetv5.deploy.report.write": ("report",),
    "fbnetv5.deploy.show": (
        "NetworkDescription",
        "show",
    ),
    "fbnetv5.deploy.space": (
        "SpaceDescription",
        "space",
    ),
    "fbnetv5.deploy.validate": (
        "ValidateResult",
        "validate",
    ),
    "fbnetv5.evaluate": (
        "Comparison",
        "Evaluation",
    ),
    "fbnetv5.labeling.assemble": ("LabelSummary",),
    "fbnetv5.labeling.command": (
        "LabelPreview",
        "label",
        "preview_labels",
    ),
    "fbnetv5.search.bmtas.command": (
        "BranchResult",
        "branch",
        "resume_branch",
    ),
    "fbnetv5.search.nars.command": (
        "nars",
        "resume_nars",
    ),
    "fbnetv5.search.nars.run": ("NarsResult",),
    "fbnetv5.search.reinforce.command": (
        "SearchResult",
        "search",
    ),
    "fbnetv5.search.reinforce.later.command": ("add_task",),
    "fbnetv5.search.reinforce.resume": ("resume_search",),
    "fbnetv5.training.command": (
        "resume_train",
        "train",
    ),
    "fbnetv5.training.run": ("TrainResult",),
    "latency.verify": ("Verification",),
}
"""The modules of the names, imported on first use."""
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a name of this module on its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    """The public names, for completion."""
    return __all__
