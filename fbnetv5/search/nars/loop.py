"""The search for pairs: train a batch, fit the predictor, choose the next batch; then evolve and train the finalists.

Constrained iterative optimisation and predictor-based evolution of NARS (FBNetV3, arXiv 2006.02049, sections 3.3 and
3.4). The search's only state is the list of trials and their folders: a resumed search fits the same predictors to the
same results again, which takes seconds.

Shape legend: N trials, S variables of the space, R of the recipe.
"""

from collections.abc import Callable, Iterable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fbnetv5.costs.constraints import Constraints
from fbnetv5.search.nars.acquisition import choose, without
from fbnetv5.search.nars.entry import NarsEntry
from fbnetv5.search.nars.evolution import evolve
from fbnetv5.search.nars.jobs import Runner
from fbnetv5.search.nars.pool import sample_pool
from fbnetv5.search.nars.predictor import Ensemble, Pretrained, fit, pretrain
from fbnetv5.search.nars.prepare import Prepared
from fbnetv5.search.nars.quality import Quality, cross_validate, stop_step
from fbnetv5.search.nars.results import pair_architecture
from fbnetv5.search.nars.trial import TrialResult, make_trial, read_result
from fbnetv5.search.nars.trials import Batch, Trials
from fbnetv5.spaces.space import Choices


class NarsLoop:
    """The iterations of a search."""

    def __init__(self, prepared: Prepared, trials: Trials, run: Runner) -> None:
        self.prepared = prepared
        self.config = prepared.config
        self.pairs = prepared.pairs
        self.trials = trials
        self.run_trials = run

    @cached_property
    def constraints(self) -> Constraints:
        """The budgets of the search."""
        return self.prepared.constraints(self.config.budgets)

    @cached_property
    def pool(self) -> Choices:
        """[B, S + R]: the pairs that trainings are chosen from."""
        return sample_pool(self.pairs, self.constraints, self.config.pool, self.config.seed)

    @cached_property
    def pretrained(self) -> Pretrained:
        """The predictor after its pretraining on architectures of all costs."""
        generator = np.random.default_rng([self.config.seed, 5])
        points = generator.random((self.config.pretraining_pool, len(self.pairs.counts)))
        drawn = self.pairs.from_unit(points)
        statistics = self.prepared.statistics_of(self.pairs.architectures(drawn))
        return pretrain(self.pairs, drawn, statistics, seed=self.config.seed, settings=self.config.predictor)

    @property
    def last_step(self) -> int:
        """The last step of a training that is not stopped early."""
        return self.config.steps

    @property
    def stop_at(self) -> int:
        """The step at which the scores of all trials are compared, once the first batch is trained."""
        results = [result for result in self.trials.results[: len(self.trials.numbers(0))] if result.failure is None]
        if len(results) < 2:
            return self.last_step
        curves = np.array([result.scores for result in results])
        return stop_step(results[0].steps, curves, self.config.correlation)

    def scores(self) -> NDArray[np.float64]:
        """[N]: scores of all trials at ``stop_at``, higher is better."""
        return self.trials.scores_at(self.stop_at, self.prepared.sign)

    def fit(self, pairs: Choices, scores: NDArray[np.float64]) -> Ensemble:
        """An ensemble that is fitted to trainings of pairs [N, S + R] with scores [N]."""
        return fit(self.pairs, self.pretrained, pairs, scores, seed=self.config.seed, settings=self.config.predictor)

    def ensemble(self) -> Ensemble:
        """The ensemble that is fitted to all trials."""
        return self.fit(self.trials.pairs[: len(self.trials.results)], self.scores())

    def run(self, report: Callable[[NarsEntry], None]) -> int:
        """Run or resume all iterations and the finalists; return the number of the best trial.

        Args:
            report: called with the state after every batch of trainings.

        Raises:
            UserError: a trial's folder is damaged.
            VerificationError: all trainings failed.
        """
        for batch in range(self.config.iterations):
            if batch == len(self.trials.batches):
                self.trials.add(self._first_batch() if batch == 0 else self._next_batch())
            self._train(batch)
            report(self._entry())
        if len(self.trials.batches) == self.config.iterations:
            self.trials.continued = self._stopped_early()
            self.trials.add(Batch(pairs=_tuples(self.evolve(self.constraints)[: self.config.finalists])))
        self._complete(self.trials.continued, stop_at=None)
        self._train(self.config.iterations)
        for number in self.trials.continued:
            self.trials.results[number] = self._result(number)
        report(self._entry())
        return self.best_trial()

    def _first_batch(self) -> Batch:
        return Batch(pairs=_tuples(self.pool[: self.config.first_batch]))

    def _next_batch(self) -> Batch:
        chosen = choose(
            self.ensemble(),
            self.pool,
            self.trials.pairs,
            self.config.batch,
            method=self.config.acquisition,
            seed=self.config.seed + len(self.trials.batches),
        )
        return Batch(pairs=_tuples(chosen), stop_at=self.stop_at if self.stop_at < self.last_step else None)

    def _train(self, batch: int) -> None:
        """Train the pairs of a batch that are not trained yet, and add the results."""
        self._complete(self.trials.numbers(batch), stop_at=self.trials.batches[batch].stop_at)
        self.trials.results += [self._result(number) for number in self.trials.numbers(batch)]

    def _complete(self, numbers: Iterable[int], *, stop_at: int | None) -> None:
        """Train trials to a step; those that got there or failed are left as they are."""
        pending = []
        for number in numbers:
            folder = self.trials.trial_folder(number)
            result = read_result(folder)
            if result and (result.failure is not None or result.last_step >= (stop_at or self.last_step)):
                continue
            pair = self.trials.pairs[number]
            architecture = pair_architecture(self.prepared, pair)
            make_trial(folder, architecture, self.config.train_config(self.pairs.recipe(pair), stop_at=stop_at))
            pending.append(folder)
        if pending:
            self.run_trials(pending)

    def _result(self, number: int) -> TrialResult:
        result = read_result(self.trials.trial_folder(number))
        assert result is not None  # its training has ended
        return result

    def evolve(self, constraints: Constraints) -> Choices:
        """New pairs that meet the budgets, those with the best predicted scores first."""
        trained, ensemble = self.trials.pairs[: len(self.trials.results)], self.ensemble()
        start = np.concatenate([trained, self.pool[: self.config.pool // 4]])
        return without(evolve(start, ensemble, self.pairs, constraints, seed=self.config.seed), trained)

    def _stopped_early(self) -> tuple[int, ...]:
        """The best of the trials that were stopped early."""
        scores = self.scores()
        last = [result.last_step for result in self.trials.results]
        stopped = [number for number in np.argsort(-scores, kind="stable").tolist() if last[number] < self.last_step]
        return tuple(stopped[: self.config.finalists])

    def best_trial(self) -> int:
        """The number of the trial with the best score of those that were trained to the end."""
        final = self.trials.scores_at(self.last_step, self.prepared.sign, impute=False)
        return int(np.nanargmax(final))

    def quality(self) -> Quality:
        """How well predictors predict trials that are held out of their fit."""
        scores = self.scores()
        return cross_validate(self.fit, self.trials.pairs[: len(scores)], scores, seed=self.config.seed)

    def _entry(self) -> NarsEntry:
        """The state after the last batch."""
        scores, results, quality = self.scores(), self.trials.results, self.quality()
        return NarsEntry(
            step=len(results),
            best=self.prepared.sign * float(scores.max()),
            failed=sum(result.failure is not None for result in results),
            stop_at=self.stop_at,
            tau=quality.tau,
            mean_absolute_error=quality.mean_absolute_error,
            coverage=quality.coverage,
            spread_factor=quality.spread_factor,
            seconds=sum(result.seconds for result in results),
        )


def _tuples(pairs: Choices) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(pair) for pair in pairs.tolist())
