from export.progress import outermost_stage


def test_only_the_first_stage_is_reported() -> None:
    seen: list[tuple[str, int, int]] = []
    report = outermost_stage(lambda *stage: seen.append(stage))
    for stage in (("build", 0, 2), ("tactics", 1, 9), ("build", 1, 2)):
        report(*stage)
    assert seen == [("build", 0, 2), ("build", 1, 2)]
