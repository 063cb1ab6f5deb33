"""Prints measured latency tables and their errors."""

from typing import TYPE_CHECKING

from fbnetv5.cli.console import print_json, print_line, print_table

if TYPE_CHECKING:
    from fbnetv5.api import MeasuredTable
    from latency.correction import ErrorReport


def print_profile(measured: "MeasuredTable", *, as_json: bool) -> None:
    """Print the blocks of a measured table, its correction, and where its HTML report is."""
    if as_json:
        print_json(measured.to_json())
        return
    table, now = measured.result.table, len(measured.result.measured)
    correction = table.correction
    print_line(
        f"{measured.path}: {len(measured.keys)} blocks and {len(table.networks)} whole networks, {now} measured now; "
        f"the overhead of a call is {table.overhead_ms:.4f} ms"
    )
    if unstable := table.unstable:
        print_line(
            f"{len(unstable)} of them varied by more than {table.timing.max_cv:.0%} between repetitions: "
            "is other work running?"
        )
    if correction is None:
        print_line("not corrected, since no whole network was measured: the sum of blocks is inaccurate")
    else:
        use = "is used" if correction.helps else "does not help and is NOT used: the plain sum is"
        held_out = correction.held_out.networks
        print_line(
            f"correction fitted on {correction.fitted_on} networks {use}; errors on {held_out} held-out networks:"
        )
        print_errors(correction.held_out)
    print_line(f"HTML report: {measured.report}")


def print_errors(report: "ErrorReport") -> None:
    """Print the errors of a table and of simpler predictors."""
    predictors = {"table": report.predicted, "plain sum of blocks": report.standalone, "multiply-adds": report.flops}
    rows = [[name, *errors.texts()] for name, errors in predictors.items() if errors is not None]
    print_table(["predicted by", "mean error", "bias", "within 5 %", "within 10 %", "Kendall's tau"], rows)
    print_line(f"measurement noise: repetitions of one network differ by {report.noise:.2%}")
