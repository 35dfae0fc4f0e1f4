"""Search for the hyperparameters of a recipe, by Optuna (Akiba et al. 2019)."""

from __future__ import annotations

import math
import os
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

from hyperrl.experiments.counting import CountSteps
from hyperrl.experiments.engines import Engine, LocalEngine, State, Task
from hyperrl.families.family import Family, load_family
from hyperrl.hypernet import HEADS
from hyperrl.policies.hyper_config import HyperConfig
from hyperrl.rollouts.episodes import play
from hyperrl.training.models import build
from hyperrl.training.recipe import AgentSpec, agent_spec
from hyperrl.utils.extras import require
from hyperrl.utils.files import held, refuse_existing, write_text

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import JournalStorage
    from stable_baselines3.common.base_class import BaseAlgorithm

EVALUATIONS: Final = 5  # of a trial; after all but the last it may be given up
JOURNAL: Final = "optuna.log"
STUDY: Final = "hyperrl"
"""The name of the one study in a journal, whatever its folder is called."""
HEAD_OPTIONS: Final = ("rank", "chunk_size", "chunk_embedding", "bottleneck")


def tune(
    family: str | Path | Family,
    agent: str | Path,
    trials: int = 30,
    steps: int = 100_000,
    seed: int = 0,
    *,
    out: str | Path,
    resume: bool = False,
    device: str = "auto",
    engine: Engine | None = None,
    progress: bool = False,
) -> AgentSpec:
    """Search for the head, rank, embedding and learning rate with which a recipe does best on a family.

    Each trial trains a model and is judged by its mean return on contexts of the split ``interpolation``: trials meet
    the same ones, and the same initial states. Contexts of ``extrapolation`` stay unseen. The recipe as it is comes
    first. One that is worse than the median of the others at a fifth of its steps, or later, is given up. As the best
    of many trials of one seed each, the result looks better than it is: train it with other seeds.

    Trials that run side by side share one journal of Optuna. What a trial tries depends on which others have ended, so
    only an engine of one worker gives the same search for the same seed.

    :param family: a family, its name or the path of its ``.toml`` file.
    :param agent: the name of a recipe with the policy ``"hyper"``, or the path of its ``.toml`` file.
    :param trials: how many, with those before an interruption.
    :param steps: environment steps of a trial.
    :param seed: seed of the search and of each trial.
    :param out: the folder to write; it must not exist. It holds Optuna's journal, a recipe for each trial and, from
        the first finished trial on, the best recipe as ``<agent>-tuned.toml``.
    :param resume: continue the search of ``out``; where there is none, begin.
    :param device: where the networks are: ``"cpu"``, ``"cuda"``, ``"auto"``.
    :param engine: where trials run; on this machine, one a core, by default.
    :param progress: show a progress bar.
    :return: the best recipe.
    :raises ValueError: for a faulty recipe, for a folder that exists or holds another search, for an engine whose
        workers do not see the folder, and where training diverged in every trial.
    """
    require("the search", "tune", "optuna", "tomlkit")
    for name, value in (("trials", trials), ("steps", steps)):
        if value < 1:
            raise ValueError(f"expected {name} ≥ 1, got {name}={value}")
    engine = LocalEngine() if engine is None else engine
    if not engine.shared_storage:
        raise ValueError(
            "trials share one journal file: expected an engine whose workers all see the output folder, got one "
            "without shared storage. Give --shared-storage (shared_storage=True) and a folder that all nodes see"
        )
    from optuna.trial import TrialState

    family = family if isinstance(family, Family) else load_family(family)
    spec = agent_spec(agent)
    if spec.definition.policy != "hyper":
        raise ValueError(
            f"{spec.source}: the search is over how weights are generated: expected policy = 'hyper', got "
            f"{spec.definition.policy!r}"
        )
    build(family, spec, seed, device=device)  # faults are named before anything is written
    search = Search(family, spec, steps, seed, Path(out).absolute(), device)
    if not resume:
        search.refuse_existing()
    with held(search.out, seconds=0):
        study = search.open(resume)
        finished = len(study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED)))
        begun = sum(trial.state != TrialState.WAITING for trial in study.trials)
        tasks = [Task((search, seed + begun + i), search.out) for i in range(trials - finished)]
        with tqdm(total=trials, initial=finished, disable=not progress, unit="trial", desc="tune") as bar:

            def watch(state: State) -> None:
                bar.set_postfix_str(f"{len(state.running)} running, {sum(state.steps):,} steps", refresh=True)

            with closing(engine.run(run_trial, tasks, watch)) as outcomes:
                for outcome in outcomes:
                    if outcome.error is not None:
                        raise outcome.error
                    bar.set_postfix_str("", refresh=False)
                    bar.update()
                    if (best := search.keep_best(study)) is not None:
                        bar.set_description(f"tune, best {best:.4g}")
        search.keep_best(study)
        if not search.best.exists():
            raise ValueError(
                f"{search.out}: training diverged in each of {trials} trials: is the learning rate too high?"
            )
        return agent_spec(Path(out) / search.best.name)


def run_trial(search: Search, seed: int, out: Path) -> None:
    """Take part in a search with one trial.

    :param seed: of what Optuna suggests.
    :param out: the folder of the search.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # its lines would tear the progress bar
    sampler = optuna.samplers.TPESampler(seed=seed)
    study = optuna.load_study(
        study_name=STUDY, storage=_storage(out / JOURNAL), sampler=sampler, pruner=optuna.pruners.MedianPruner()
    )
    study.optimize(search.trial, 1)


@dataclass(frozen=True)
class Search:
    """What all trials have in common.

    :param family: the family.
    :param agent: the recipe from which the search begins.
    :param steps: environment steps of a trial.
    :param seed: seed of each trial's training and evaluation.
    :param out: the folder, an absolute path.
    :param device: where the networks are.
    """

    family: Family
    agent: AgentSpec
    steps: int
    seed: int
    out: Path
    device: str

    @property
    def best(self) -> Path:
        """The file of the best recipe."""
        return self.out / f"{self.agent.name}-tuned.toml"

    @cached_property
    def text(self) -> str:
        """The recipe as it is written."""
        return self.agent.source.read_text(encoding="utf-8")

    @property
    def embedding(self) -> list[int]:
        """The widths of the recipe's encoder."""
        return list(self.agent.definition.policy_kwargs.get("embedding", HyperConfig.embedding))

    def refuse_existing(self) -> None:
        """Refuse to begin where there is a folder."""
        refuse_existing(self.out, "continue it with --resume (resume=True), or choose another folder")

    def open(self, resume: bool) -> Study:
        """Begin the search, or open it to go on; the folder must be held by this process."""
        import optuna
        from optuna.trial import TrialState

        if not resume:
            self.refuse_existing()  # it may have begun since
        journal = self.out / JOURNAL
        if self.out.exists():
            for leftover in (*self.out.glob(".*.partial"), *self.out.glob(".*.lock")):  # of a process that was killed
                leftover.unlink(missing_ok=True)
            if not journal.is_file() and any(self.out.iterdir()):
                raise ValueError(f"{self.out} holds no search: it has no {JOURNAL}. Choose another folder")
        self.out.mkdir(parents=True, exist_ok=True)
        _cut_to_whole_lines(journal)
        settings = dict(
            family=self.family.digest,
            agent=self.text,
            steps=self.steps,
            seed=self.seed,
            irrelevant=self.family.irrelevant,
        )
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            study = optuna.create_study(
                storage=_storage(journal), study_name=STUDY, direction="maximize", load_if_exists=True
            )
            before, trials = study.user_attrs.get("settings"), study.trials
        except Exception as error:  # whatever Optuna makes of lines that it did not write
            raise ValueError(
                f"{journal} is damaged, so the search cannot go on: {type(error).__name__}: {error}"
            ) from error
        finally:
            optuna.logging.set_verbosity(verbosity)
        if before is None:
            study.set_user_attr("settings", settings)
        elif before != settings:
            changed = [name for name, value in settings.items() if before.get(name) != value]
            raise ValueError(f"{self.out} holds another search: {', '.join(changed)} differ. Choose another folder")
        for trial in trials:
            if trial.state == TrialState.RUNNING:  # killed
                study.tell(trial.number, state=TrialState.FAIL)
        if not study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.WAITING)):
            study.enqueue_trial(self._as_it_is())
        return study

    def trial(self, trial: Trial) -> float:
        """Train with what Optuna suggests and return the mean return."""
        import optuna

        path = self.out / f"trial-{trial.number}.toml"
        write_text(path, self._recipe(trial))
        model = build(self.family, agent_spec(path), self.seed, device=self.device)
        judge = _Judge(self, trial)
        try:
            model.learn(self.steps, callback=[CountSteps(), judge])
        except ValueError as error:  # torch's distributions refuse to act on NaN
            raise optuna.TrialPruned(f"training diverged: {error}") from error
        return judge.judge(model)

    def returns(self, model: BaseAlgorithm) -> float:
        """Evaluate a model."""
        contexts = self.family.context_space.sample("interpolation", 20, self.seed)
        return float(play(model, self.family, contexts, 5, self.seed).returns.mean())

    def keep_best(self, study: Study) -> float | None:
        """Write the best recipe so far, and return its mean return, ``None`` where there is none."""
        if not study.best_trials:
            return None
        best = study.best_trial
        text = (self.out / f"trial-{best.number}.toml").read_text(encoding="utf-8")
        said = f"# Trial {best.number} of a search on {self.family.name}: mean return {best.value:.4g} after "
        write_text(self.best, f"{said}{self.steps:,} steps, on contexts of interpolation.\n{text}")
        return best.value

    def _recipe(self, trial: Trial) -> str:
        """Write Optuna's suggestions into the text of the recipe."""
        import tomlkit

        document: Any = tomlkit.parse(self.text)
        policy_kwargs, hyperparameters = document["policy_kwargs"], document["hyperparameters"]
        for name in HEAD_OPTIONS:
            policy_kwargs.pop(name, None)
        heads = [head for head in HEADS if head != "adapter" or not hyperparameters.get("use_sde")]
        policy_kwargs["head"] = trial.suggest_categorical("head", heads)
        if policy_kwargs["head"] == "low_rank":
            policy_kwargs["rank"] = trial.suggest_int("rank", 1, 32, log=True)
        # The last layer's width is what every head multiplies; those before it cost little and stay.
        embedding = trial.suggest_int("embedding", 4, 128, log=True)
        policy_kwargs["embedding"] = [*self.embedding[:-1], embedding]
        rate = float(f"{trial.suggest_float('learning_rate', 1e-4, 1e-2, log=True):.3g}")
        falls = isinstance(hyperparameters.get("learning_rate"), str)
        hyperparameters["learning_rate"] = f"lin_{rate}" if falls else rate
        return tomlkit.dumps(document)

    def _as_it_is(self) -> dict[str, Any]:
        """Return what the recipe itself says; Optuna draws the rest."""
        policy_kwargs, hyperparameters = self.agent.definition.policy_kwargs, self.agent.definition.hyperparameters
        said: dict[str, Any] = {name: policy_kwargs[name] for name in ("head", "rank") if name in policy_kwargs}
        said["embedding"] = self.embedding[-1]
        if "learning_rate" in hyperparameters:
            said["learning_rate"] = float(str(hyperparameters["learning_rate"]).removeprefix("lin_"))
        return said


class _Judge(BaseCallback):
    """Evaluate a trial now and then, and give it up where others did better."""

    def __init__(self, search: Search, trial: Trial) -> None:
        super().__init__()
        self.search = search
        self.trial = trial
        self.judged = 0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= (self.judged + 1) * self.search.steps / EVALUATIONS:
            self.judge(self.model)

    def judge(self, model: BaseAlgorithm) -> float:
        """Return the mean return."""
        import optuna

        self.judged += 1
        value = self.search.returns(model)
        if not math.isfinite(value):
            raise optuna.TrialPruned("training diverged")
        self.trial.report(value, self.judged)
        if self.judged < EVALUATIONS and self.trial.should_prune():
            raise optuna.TrialPruned
        return value


def _storage(path: Path) -> JournalStorage:
    """Open a journal with a lock that ends with the process that holds it, which Optuna's own locks do not."""
    from filelock import FileLock
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    class Lock(JournalFileOpenLock):
        def __init__(self) -> None:
            self.lock = FileLock(path.with_name(f".{path.name}.lock"))

        def acquire(self) -> bool:
            self.lock.acquire()
            return True

        def release(self) -> None:
            self.lock.release()

    return JournalStorage(JournalFileBackend(str(path), Lock()))


def _cut_to_whole_lines(journal: Path) -> None:
    """Remove what a process that was killed, or a full disk, left of a journal's last line."""
    if journal.is_file():
        whole = journal.read_bytes().rfind(b"\n") + 1
        if whole < journal.stat().st_size:
            os.truncate(journal, whole)
