from tests.gpu.gpu_tests import read_junit, summarise

JUNIT = """<?xml version="1.0"?>
<testsuites><testsuite name="pytest" errors="2" failures="1" skipped="1" tests="5">
<testcase classname="tests.a" name="test_one" time="0.1"/>
<testcase classname="tests.a" name="test_two"><failure message="assert 1 == 2">def test_two():
E   assert 1 == 2</failure></testcase>
<testcase classname="tests.a" name="test_three"><skipped type="pytest.skip" message="no TensorRT"/></testcase>
<testcase classname="" name="tests.b"><error message="collection failure">
E   ModuleNotFoundError: No module named 'hypothesis'</error></testcase>
<testcase classname="" name="tests.c"><error message="collection failure">
E   SyntaxError: invalid syntax</error></testcase>
</testsuite></testsuites>"""


def test_tests_are_counted_and_those_that_did_not_run_have_a_reason() -> None:
    result = read_junit(JUNIT)
    assert result["passed"] == 1
    assert [test["test"] for test in result["failed"]] == ["tests.a.test_two", "tests.c"]
    assert result["skipped"] == [{"test": "tests.a.test_three", "reason": "no TensorRT"}]
    missing = "E   ModuleNotFoundError: No module named 'hypothesis'"
    assert result["not_collected"] == [{"test": "tests.b", "reason": missing}]


def test_the_summary_has_a_line_per_failure_and_reason() -> None:
    assert summarise(read_junit(JUNIT)) == [
        "1 passed, 2 failed, 1 skipped",
        "failed: tests.a.test_two: assert 1 == 2",
        "failed: tests.c: collection failure",
        "skipped: 1: no TensorRT",
        "not collected: tests.b: E   ModuleNotFoundError: No module named 'hypothesis'",
    ]
