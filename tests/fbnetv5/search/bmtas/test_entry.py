from fbnetv5.search.bmtas.entry import BranchEntry


def test_scalars_name_the_loss_of_each_task() -> None:
    entry = BranchEntry(
        step=10,
        phase="routing",
        losses={"cls": 1.0},
        expected_cost=2e8,
        multiplier=0.5,
        entropy=1.1,
        temperature=4.0,
    )
    assert entry.scalars == {
        "losses/cls": 1.0,
        "expected_cost": 2e8,
        "multiplier": 0.5,
        "entropy": 1.1,
        "temperature": 4.0,
    }
