"""Writes the JSON Schemas of users' files to docs/schemas/, which editors use to complete and check fields.

python tools/write_schemas.py
"""

from pathlib import Path

from export.files import write_json
from fbnetv5.costs.cost_files import CostFile
from fbnetv5.labeling.config import LabelConfig
from fbnetv5.labeling.teachers.description import TeacherDescription
from fbnetv5.runs.config import RunConfig
from fbnetv5.search.bmtas.config import BranchConfig
from fbnetv5.search.nars.config import NarsConfig
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.later.config import LaterConfig
from fbnetv5.training.config import TrainConfig

FOLDER = Path(__file__).parent.parent / "docs" / "schemas"
CONFIGS: dict[str, type[RunConfig | LabelConfig]] = {
    "search": SearchConfig,
    "search-add": LaterConfig,
    "branch": BranchConfig,
    "nars": NarsConfig,
    "train": TrainConfig,
    "label": LabelConfig,
}
"""By command, the model of its ``--config`` file; "search-add" is that of ``fbnetv5 search --add``."""

if __name__ == "__main__":
    for command, config in CONFIGS.items():
        write_json(FOLDER / f"{command}.json", config.schema_of_files())
    write_json(FOLDER / "teacher.json", TeacherDescription.schema_of_files())
    write_json(FOLDER / "cost.json", CostFile.schema_of_files())
