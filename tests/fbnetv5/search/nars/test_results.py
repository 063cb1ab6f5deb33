import json
from dataclasses import replace
from pathlib import Path

from fbnetv5.architecture import load_architecture
from fbnetv5.evaluate import trained_size
from fbnetv5.runs.checkpoint import load_tensors
from fbnetv5.search.nars.prepare import Prepared
from fbnetv5.search.nars.results import pair_architecture
from fbnetv5.search.nars.trials import load_trials
from fbnetv5.training.config import TrainConfig
from fbnetv5.training.recipe import Recipe
from tests.fbnetv5.search.nars.conftest import draw


def test_a_pair_has_the_record_of_its_architecture(prepared: Prepared) -> None:
    pair = draw(prepared.pairs, 1)[0]
    config = prepared.config.changed(data=prepared.config.data.changed(fit="letterbox", size=(64, 96)))
    record = pair_architecture(replace(prepared, config=config), pair, trial=3)
    assert record.provenance["fit"] == "letterbox"
    assert record.resolution == (32, 32)
    assert trained_size(record) == (64, 96)
    assert record.choices_array.tolist() == pair[: prepared.pairs.size].tolist()
    assert record.provenance["budgets"] == [{"limit": 2e6, "unit": "macs"}]
    assert record.provenance["trial"] == 3


def test_the_result_is_that_of_the_best_trial(finished: Path, prepared: Prepared) -> None:
    record = load_architecture(finished / "cls.json")
    number = record.provenance["trial"]
    trials = load_trials(finished, prepared.pairs.counts)
    weights, own = (load_tensors(path / "cls.safetensors") for path in (trials.trial_folder(number), finished))
    assert all(value.equal(own[name]) for name, value in weights.items())
    recipe = prepared.pairs.recipe(trials.pairs[number])
    stored = Recipe.load(finished / "recipe.json").to_json()
    assert recipe.items() <= stored.items()
    assert stored["steps"] == 4


def test_the_written_recipe_and_the_list_of_trials_have_the_values_that_were_trained(
    finished: Path, prepared: Prepared
) -> None:
    rows = json.loads((finished / "pareto.json").read_text(encoding="utf-8"))["trials"]
    trials = load_trials(finished, prepared.pairs.counts)
    for row in rows:
        trained = TrainConfig.load(trials.trial_folder(row["trial"])).to_json()
        assert row["recipe"].items() <= trained.items()
        assert row["recipe"]["weight_decay"] == (0.02 if row["recipe"]["optimizer"] == "adamw" else 2e-5)
    best = load_architecture(finished / "cls.json").provenance["trial"]
    assert Recipe.load(finished / "recipe.json").to_json().items() >= rows[best]["recipe"].items()


def test_the_list_of_trials_has_their_costs_and_curves(finished: Path) -> None:
    document = json.loads((finished / "pareto.json").read_text(encoding="utf-8"))
    assert [row["trial"] for row in document["trials"]] == list(range(6))
    for row in document["trials"]:
        assert row["cost"]["macs"] <= 2e6
        assert len(row["steps"]) == len(row["scores"])
