from fbnetv5.data.notes import Notes


def test_kinds_are_counted_in_the_order_of_their_first_occurrence() -> None:
    notes = Notes()
    for kind, count in (("b", 1), ("a", 2), ("b", 3), ("c", 0)):
        notes.add(kind, count)
    assert notes.lines() == ("b: 4", "a: 2")
