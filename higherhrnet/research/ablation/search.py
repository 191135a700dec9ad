"""Searching settings with Optuna; see :mod:`.search_plan` for the plan.

Each trial is a training in a folder of its own. An interrupted search goes on: its journal has the
finished trials, and those that were at work resume from their checkpoints.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...config import PoseConfig, override_config, parse_config, read_config, to_yaml
from ...config.base import rules_of
from ...errors import UserError
from ...factory.training import train
from ...training import checkpoint
from ...training.callbacks import Callback
from ...training.loop import Trainer
from ...training.loss_meter import DivergenceError
from .processes import list_gpus, run_jobs
from .search_plan import Range, Search
from .search_report import SearchResults, Trial, write_report

_log = logging.getLogger(__name__)
_FAILED = "failed"
"""Mark of trials whose settings are at fault: they are not tried again."""
_STUDY = "search"
_STARTUP = 5
"""Trials before the first is pruned."""


def run_search(
    search: Search, output: Path, overrides: Sequence[str], device: str, processes: int = 1
) -> SearchResults:
    """Run the trials that are not done yet, and write the report.

    Writes ``trials/NNN/`` (trainings), ``journal.log``, ``search.md``, ``search.json``,
    ``search.png`` and ``best.yaml``, the config with the best trial's settings.

    Args:
        search: what to do.
        output: its folder.
        overrides: settings of every trial.
        device: where.
        processes: trials at the same time.

    Raises:
        UserError: Optuna is not installed, a setting is wrong, or the folder holds another search.
    """
    config = _base_config(search, overrides)
    if config.TRAIN.VALIDATE_EVERY >= config.TRAIN.END_EPOCH and search.pruner != "none":
        _log.info(
            "TRAIN.VALIDATE_EVERY is not below TRAIN.END_EPOCH: nothing is known before a trial's "
            "end, and none is pruned"
        )
    study = _open_study(search, output)
    plan = to_yaml(config) + repr(sorted(search.space.items())) + search.sampler
    if study.user_attrs.get("plan", plan) != plan:
        raise UserError(f"'{output}' holds a search with other settings; choose another --output")
    study.set_user_attr("plan", plan)
    _take_up(study, output)
    job = partial(_work, search, output, to_yaml(config), device)
    run_jobs(job, range(processes), processes, list_gpus(device), lambda n: f"worker {n}")
    results = _collect(study)
    write_report(search, output, results, config)
    return results


def _base_config(search: Search, overrides: Sequence[str]) -> PoseConfig:
    """The config of all trials, checked with the limits of every setting."""
    fixed = {*search.settings[::2], *overrides[::2]} & search.space.keys()
    if fixed:
        raise UserError(f"SPACE.{min(fixed)} is searched: it cannot be set to one value, too")
    config = read_config(search.config, [*search.settings, *overrides])
    if not isinstance(config, PoseConfig):
        raise UserError(f"'{search.config}' is of a classifier; a search is for pose networks")
    for key, values in search.space.items():
        limits = (values.low, values.high) if isinstance(values, Range) else values
        for value in limits:
            override_config(config, [key, value])
        if isinstance(values, Range) and _multiple_of(config, key) > 1:
            raise UserError(
                f"SPACE.{key} must be multiples of {_multiple_of(config, key)}: list them, instead "
                "of LOW and HIGH"
            )
    return config


def _multiple_of(config: PoseConfig, key: str) -> int:
    rules = {f"{section}.{name}": rule for section, name, rule in rules_of(type(config))}
    return rules[key].multiple if key in rules else 1


def _require_optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise UserError('a search needs Optuna: pip install "higherhrnet[search]"') from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _open_study(search: Search, output: Path, worker: int = 0) -> Any:
    """The study in the folder's journal, which several processes may write."""
    optuna = _require_optuna()
    output.mkdir(parents=True, exist_ok=True)
    backend = optuna.storages.journal.JournalFileBackend(str(output / "journal.log"))
    lists = {k: list(v) for k, v in search.space.items() if not isinstance(v, Range)}
    storage = optuna.storages.JournalStorage(backend)
    # Processes, and searches that go on, draw anew, or they would all try the same.
    known = [s for s in storage.get_all_studies() if s.study_name == _STUDY]
    before = sum(len(storage.get_all_trials(s._study_id, deepcopy=False)) for s in known)
    seed = search.seed + 1000 * worker + before
    samplers = {
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed, constant_liar=True),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        "grid": lambda: optuna.samplers.GridSampler(lists, seed=search.seed),
    }
    pruners = {
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=_STARTUP),
        "hyperband": lambda: optuna.pruners.HyperbandPruner(),
        "none": lambda: optuna.pruners.NopPruner(),
    }
    return optuna.create_study(
        study_name=_STUDY,
        storage=storage,
        sampler=samplers[search.sampler](),
        pruner=pruners[search.pruner](),
        direction="maximize",
        load_if_exists=True,
    )


def _take_up(study: Any, output: Path) -> None:
    """Trials that were at work when the search ended become new ones, in their old folders."""
    states = _require_optuna().trial.TrialState
    trials = study.get_trials(deepcopy=False)
    taken = {trial.user_attrs.get("again") for trial in trials}
    for trial in trials:
        if trial.state == states.RUNNING:
            study.tell(trial.number, state=states.FAIL)
        elif trial.state != states.FAIL or trial.number in taken or _FAILED in trial.user_attrs:
            continue
        folder = trial.user_attrs.get("folder", f"{trial.number:03d}")
        if trial.params and (output / "trials" / folder / checkpoint.LAST).exists():
            _log.info("trial %d goes on from its checkpoint", trial.number)
            study.enqueue_trial(trial.params, user_attrs={"folder": folder, "again": trial.number})
        elif trial.params:
            study.enqueue_trial(trial.params, user_attrs={"again": trial.number})


def _work(search: Search, output: Path, config: str, device: str, worker: int) -> None:
    """Trials, one after another, until there are enough of all processes together."""
    optuna = _require_optuna()
    study = _open_study(search, output, worker)
    states = optuna.trial.TrialState
    enough = optuna.study.MaxTrialsCallback(search.trials, states=(states.COMPLETE, states.PRUNED))
    done = study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED))
    if len(done) >= search.trials:
        return
    study.optimize(
        partial(_run_trial, search, output, config, device),
        n_trials=2 * search.trials,
        callbacks=[enough],
        catch=(DivergenceError,),
    )


def _run_trial(search: Search, output: Path, config: str, device: str, trial: Any) -> float:
    """Train with the settings that the sampler chooses; returns the best metric."""
    values = {key: _suggest(trial, key, space) for key, space in search.space.items()}
    own = parse_config(config, [word for pair in values.items() for word in pair], quiet=True)
    assert isinstance(own, PoseConfig)
    name = trial.user_attrs.get("folder", f"{trial.number:03d}")
    trial.set_user_attr("folder", name)
    folder = output / "trials" / name
    _log.info("trial %d: %s", trial.number, ", ".join(f"{k} {v}" for k, v in values.items()))
    resume = (folder / checkpoint.LAST).exists()
    try:
        progress = train(own, folder, device, resume, callbacks=[Pruning(trial)])
    except (DivergenceError, UserError):
        trial.set_user_attr(_FAILED, True)
        raise
    trial.set_user_attr("epochs", progress.epoch)
    trial.set_user_attr("metric", progress.metric)
    return progress.best


def _suggest(trial: Any, key: str, space: Range | tuple[Any, ...]) -> Any:
    if not isinstance(space, Range):
        return trial.suggest_categorical(key, list(space))
    if isinstance(space.low, int) and isinstance(space.high, int):
        return trial.suggest_int(key, space.low, space.high, log=space.log)
    return trial.suggest_float(key, float(space.low), float(space.high), log=space.log)


class Pruning(Callback):
    """Reports each validation to the study, and ends trials that are worse than others were.

    Args:
        trial: of Optuna.
    """

    def __init__(self, trial: Any) -> None:
        self._trial = trial

    def on_epoch_end(
        self, trainer: Trainer, record: dict[str, Any], curve: Sequence[float]
    ) -> None:
        """See :class:`Callback`."""
        value = record.get(trainer.settings.metric)
        if value is None or not math.isfinite(value):
            return
        self._trial.set_user_attr("epochs", record["epoch"])
        self._trial.set_user_attr("metric", trainer.settings.metric)
        self._trial.report(value, record["epoch"])
        if record["epoch"] < trainer.settings.epochs and self._trial.should_prune():
            optuna = _require_optuna()
            raise optuna.TrialPruned


def _collect(study: Any) -> SearchResults:
    trials, metric = [], "AP"
    known = study.get_trials(deepcopy=False)
    taken_up = {trial.user_attrs.get("again") for trial in known}
    for trial in known:
        if trial.state.name not in ("COMPLETE", "PRUNED", "FAIL") or not trial.params:
            continue
        if trial.number in taken_up:
            continue  # it was interrupted, and done again
        metric = trial.user_attrs.get("metric", metric)
        best = max(trial.intermediate_values.values(), default=None)
        if trial.value is not None and math.isfinite(trial.value):
            best = trial.value
        epochs = int(trial.user_attrs.get("epochs", 0))
        trials.append(Trial(trial.number, trial.state.name.lower(), trial.params, best, epochs))
    rank = {"complete": 2, "pruned": 1, "fail": 0}
    trials.sort(key=lambda t: (rank[t.state], -math.inf if t.metric is None else t.metric))
    return SearchResults(metric, trials[::-1])
