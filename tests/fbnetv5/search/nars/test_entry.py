from dataclasses import asdict

from fbnetv5.search.nars.entry import NarsEntry


def test_an_entry_shows_all_its_figures() -> None:
    entry = NarsEntry(
        step=5,
        best=0.5,
        failed=1,
        stop_at=8,
        tau=0.4,
        mean_absolute_error=0.1,
        coverage=0.8,
        spread_factor=1.5,
        seconds=3.0,
    )
    assert {"step": 5, **entry.scalars} == asdict(entry)
