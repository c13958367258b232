"""What to try next, by Optuna, which keeps nothing here: it is told all earlier trials each time."""

from typing import TYPE_CHECKING, Any

from lsan.config import Recipe
from lsan.training.loop import stream
from lsan.tuning.records import Search, Trial
from lsan.tuning.space import is_number, is_range, value_at, with_values

if TYPE_CHECKING:
    import optuna

#: Trials before the first is chosen by what the earlier ones gave, and before the first may be pruned.
_STARTUP = 5
#: Epochs that every trial gets before it may be pruned.
_WARMUP = 3


def propose(search: Search, trials: list[Trial]) -> "optuna.Trial":
    """The next trial, with values drawn: a tree-structured Parzen estimator (Bergstra et al. 2011) and the median rule
    for pruning."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    states = {
        "finished": optuna.trial.TrialState.COMPLETE,
        "pruned": optuna.trial.TrialState.PRUNED,
        "failed": optuna.trial.TrialState.FAIL,
    }
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(
            seed=stream(search.recipe.seed, "search", len(trials)) % 2**32, n_startup_trials=_STARTUP
        ),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_STARTUP, n_warmup_steps=_WARMUP),
    )
    distributions = {key: _distribution(entry) for key, entry in search.space.items()}
    for trial in trials:
        study.add_trial(
            optuna.trial.create_trial(
                state=states[trial.outcome],
                value=None if trial.outcome == "failed" else trial.figure,
                params={key: parameter_of(search.space[key], value) for key, value in trial.values.items()},
                distributions=distributions,
                intermediate_values=dict(enumerate(trial.figures, 1)),
            )
        )
    own = {key: _own_parameter(search.recipe, key, entry) for key, entry in search.space.items()}
    if not trials and None not in own.values():
        study.enqueue_trial(own)
    return study.ask(distributions)


def _distribution(entry: list[Any]) -> "optuna.distributions.BaseDistribution":
    """A range, or which of the choices it is: numbers are near to their neighbours, others are not."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if is_range(entry):
        low, high, scale = entry
        kind = IntDistribution if isinstance(low, int) and isinstance(high, int) else FloatDistribution
        return kind(low, high, log=scale == "log")
    if all(is_number(choice) for choice in entry):
        return IntDistribution(0, len(entry) - 1)
    return CategoricalDistribution(range(len(entry)))


def value_of(entry: list[Any], parameter: Any) -> Any:
    """From Optuna's parameter to the recipe's value; three digits do."""
    if not is_range(entry):
        return entry[parameter]
    return min(max(float(f"{parameter:.3g}"), entry[0]), entry[1]) if isinstance(parameter, float) else parameter


def parameter_of(entry: list[Any], value: Any) -> Any:
    """From the recipe's value to Optuna's parameter."""
    return value if is_range(entry) else entry.index(value)


def _own_parameter(recipe: Recipe, key: str, entry: list[Any]) -> Any:
    """Optuna's parameter for what the recipe has; None where the entry does not hold it."""
    if is_range(entry):
        value = value_at(recipe, key)
        return value if is_number(value) and entry[0] <= value <= entry[1] else None
    same = (n for n, choice in enumerate(entry) if with_values(recipe, {key: choice}, where=key) == recipe)
    return next(same, None)  # a table may leave out what is as usual, so values are not compared themselves
