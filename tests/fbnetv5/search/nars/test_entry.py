from fbnetv5.search.nars.entry import NarsEntry


def test_tensorboard_has_every_figure_but_the_step() -> None:
    fields = ("best", "failed", "stop_at", "tau", "mean_absolute_error", "coverage", "spread_factor", "seconds")
    entry = NarsEntry(step=3, **{name: number for number, name in enumerate(fields)})
    assert entry.scalars == {name: number for number, name in enumerate(fields)}
