import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from export.errors import UserError
from fbnetv5.runs.history import Entry, History, truncate_history


@dataclass(frozen=True, slots=True, kw_only=True)
class LossEntry(Entry):
    loss: float

    @property
    def scalars(self) -> dict[str, float]:
        return {"losses/cls": self.loss}


def test_a_resumed_history_continues_after_its_step(tmp_path: Path) -> None:
    for first, steps in ((0, (2, 4, 6)), (4, (6, 8))):
        history = History(tmp_path, step=first)
        for step in steps:
            history.add(LossEntry(step=step, loss=1.5))
        history.close()
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6, 8]
    assert lines[0] == {"step": 2, "loss": 1.5}
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {event.step for event in events.Scalars("losses/cls")} == {2, 4, 6, 8}
    assert {event.value for event in events.Scalars("losses/cls")} == {1.5}


@pytest.mark.parametrize(("step", "kept"), [(0, 0), (2, 1), (4, 2), (99, 3)])
def test_history_keeps_whole_lines_up_to_the_step(tmp_path: Path, step: int, kept: int) -> None:
    lines = [f'{{"step": {number}, "phase": "weights"}}' for number in (2, 4, 6)]
    path = tmp_path / "history.jsonl"
    path.write_text("\n".join([*lines, '{"step": 8, "pha']), encoding="utf-8")
    truncate_history(path, step)
    assert path.read_text(encoding="utf-8") == "".join(f"{line}\n" for line in lines[:kept])


def test_a_missing_history_is_no_error(tmp_path: Path) -> None:
    truncate_history(tmp_path / "history.jsonl", 3)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_names_the_file_and_the_solution(tmp_path: Path) -> None:
    history = History(tmp_path, step=0)
    history.path = Path("/dev/full")
    with pytest.raises(UserError, match=r"cannot write /dev/full: No space left.*--resume"):
        history.add(LossEntry(step=2, loss=1.5))
