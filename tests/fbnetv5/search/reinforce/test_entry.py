from typing import Any

from fbnetv5.search.reinforce.entry import SERIES, SearchEntry


def test_every_series_is_shown_for_every_task() -> None:
    values: dict[str, Any] = {name: {"cls": float(number), "det": -1.0} for number, name in enumerate(SERIES)}
    scalars = SearchEntry(step=2, phase="weights", **values).scalars
    assert scalars == {f"{name}/{task}": value for name in SERIES for task, value in values[name].items()}
    assert SearchEntry(step=2, phase="weights", **values | {"losses": {}}).scalars.keys().isdisjoint({"losses/cls"})
