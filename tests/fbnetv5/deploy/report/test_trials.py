from fbnetv5.deploy.report.trials import curves_figure, quality_figures, trials_figure
from fbnetv5.search.nars.trial import TrialResult

RESULTS = {
    0: TrialResult(steps=(2, 4), scores=(0.1, 0.3), seconds=1.0),
    1: TrialResult(steps=(2,), scores=(0.2,)),
    2: TrialResult(steps=(), scores=(), failure="its loss is not finite"),
}


def test_every_trial_is_a_curve_of_its_scores_and_the_best_is_bold() -> None:
    figure = curves_figure("cls", RESULTS, 0)
    assert figure is not None
    assert [(trace.x, trace.y) for trace in figure.plot.data] == [((2, 4), (0.1, 0.3)), ((2,), (0.2,))]
    widths = [trace.line.width for trace in figure.plot.data]
    assert widths[0] > widths[1]
    assert curves_figure("cls", {2: RESULTS[2]}, None) is None


def test_trials_lie_at_their_cost_and_last_score_with_their_recipe() -> None:
    rows = [
        {"trial": number, "cost": {"macs": 1e6 * (number + 1), "ms": 1.0}, "recipe": {"lr": 0.1}, "failure": None}
        | {"steps": list(result.steps), "scores": list(result.scores)}
        for number, result in RESULTS.items()
    ]
    figure = trials_figure({"task": "cls", "trials": rows}, 0)
    assert figure is not None
    marks, ring = figure.plot.data
    assert (marks.x, marks.y) == ((1.0, 2.0), (0.3, 0.2))
    assert [name.endswith("-open") for name in marks.marker.symbol] == [False, True]
    assert (ring.x, ring.y) == ((1.0,), (0.3,))
    assert "lr: 0.1" in marks.text[0]
    assert trials_figure({"task": "cls", "trials": rows[2:]}, None) is None


def test_the_predictor_has_a_curve_for_every_figure_of_its_quality() -> None:
    history = [{"step": n, "tau": 0.1 * n, "mean_absolute_error": 0.2, "coverage": 0.5, "best": 0.3} for n in (4, 8)]
    figures = {figure.title: figure for figure in quality_figures(history)}
    assert list(figures["Rank correlation of the predictor"].plot.data[0].y) == [0.4, 0.8]
    assert len(figures) == 4
    assert {figure.plot.layout.xaxis.title.text for figure in figures.values()} == {"trainings"}
