"""Search for the hyperparameters of a recipe, by Optuna (Akiba et al. 2019)."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

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
    from optuna.storages.journal import JournalFileBackend
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
    progress: bool = False,
) -> AgentSpec:
    """Search for the head, rank, embedding and learning rate with which a recipe does best on a family.

    Each trial trains a model and is judged by its mean return on contexts of the split ``interpolation``: trials meet
    the same ones, and the same initial states. Contexts of ``extrapolation`` stay unseen. The recipe as it is comes
    first. One that is worse than the median of the others at a fifth of its steps, or later, is given up. As the best
    of many trials of one seed each, the result looks better than it is: train it with other seeds.

    :param family: a family, its name or the path of its ``.toml`` file.
    :param agent: the name of a recipe with the policy ``"hyper"``, or the path of its ``.toml`` file.
    :param trials: how many, with those before an interruption.
    :param steps: environment steps of a trial.
    :param seed: seed of the search and of each trial.
    :param out: the folder to write; it must not exist. It holds Optuna's journal, a recipe for each trial and, from
        the first finished trial on, the best recipe as ``<agent>-tuned.toml``.
    :param resume: continue the search of ``out``; where there is none, begin.
    :param device: where the networks are: ``"cpu"``, ``"cuda"``, ``"auto"``.
    :param progress: show a progress bar.
    :return: the best recipe.
    :raises ValueError: for a faulty recipe, for a folder that exists or holds another search, and where training
        diverged in every trial.
    """
    require("the search", "tune", "optuna", "tomlkit")
    for name, value in (("trials", trials), ("steps", steps)):
        if value < 1:
            raise ValueError(f"expected {name} ≥ 1, got {name}={value}")
    import optuna
    from optuna.trial import TrialState

    family = family if isinstance(family, Family) else load_family(family)
    spec = agent_spec(agent)
    if spec.definition.policy != "hyper":
        raise ValueError(
            f"{spec.source}: the search is over how weights are generated: expected policy = 'hyper', got "
            f"{spec.definition.policy!r}"
        )
    build(family, spec, seed, device=device)  # faults are named before anything is written
    search = _Search(family, spec, steps, seed, Path(out), device)
    if progress:
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # its lines would tear the bar
    if not resume:
        search.refuse_existing()
    with held(search.out, seconds=0):
        study = search.open(resume)
        finished = len(study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED)))
        with tqdm(total=trials, initial=finished, disable=not progress, unit="trial", desc="tune") as search.bar:
            study.optimize(search.trial, max(trials - finished, 0), callbacks=[search.keep_best])
        search.keep_best(study)
        if not search.best.exists():
            raise ValueError(
                f"{search.out}: training diverged in each of {trials} trials: is the learning rate too high?"
            )
        return agent_spec(search.best)


class _Search:
    """What all trials have in common."""

    bar: tqdm[Any]

    def __init__(self, family: Family, agent: AgentSpec, steps: int, seed: int, out: Path, device: str) -> None:
        self.family = family
        self.agent = agent
        self.embedding: list[int] = list(agent.definition.policy_kwargs.get("embedding", HyperConfig.embedding))
        self.text = agent.source.read_text(encoding="utf-8")
        self.steps = steps
        self.seed = seed
        self.out = out
        self.device = device
        self.best = out / f"{agent.name}-tuned.toml"
        self.contexts = family.context_space.sample("interpolation", 20, seed)

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
        try:
            storage = optuna.storages.JournalStorage(_backend(journal))
            study = optuna.create_study(storage=storage, study_name=STUDY, direction="maximize", load_if_exists=True)
            before, trials = study.user_attrs.get("settings"), study.trials
        except Exception as error:  # whatever Optuna makes of lines that it did not write
            raise ValueError(
                f"{journal} is damaged, so the search cannot go on: {type(error).__name__}: {error}"
            ) from error
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
        study.sampler = optuna.samplers.TPESampler(seed=self.seed + len(study.trials))
        study.pruner = optuna.pruners.MedianPruner()
        return study

    def trial(self, trial: Trial) -> float:
        """Train with what Optuna suggests and return the mean return."""
        import optuna

        path = self.out / f"trial-{trial.number}.toml"
        write_text(path, self._recipe(trial))
        model = build(self.family, agent_spec(path), self.seed, device=self.device)
        report = _Report(self, trial)
        try:
            model.learn(self.steps, callback=report)
        except ValueError as error:  # torch's distributions refuse to act on NaN
            raise optuna.TrialPruned(f"training diverged: {error}") from error
        return report.judge(model)

    def returns(self, model: BaseAlgorithm) -> float:
        """Evaluate a model."""
        return float(play(model, self.family, self.contexts, 5, self.seed).returns.mean())

    def keep_best(self, study: Study, trial: Any = None) -> None:
        """Write the best recipe so far."""
        if trial is not None:
            self.bar.set_postfix_str("", refresh=False)
            self.bar.update()
        if study.best_trials:
            best = study.best_trial
            text = (self.out / f"trial-{best.number}.toml").read_text(encoding="utf-8")
            said = f"# Trial {best.number} of a search on {self.family.name}: mean return {best.value:.4g} after "
            self.bar.set_description(f"tune, best {best.value:.4g}")
            write_text(self.best, f"{said}{self.steps:,} steps, on contexts of interpolation.\n{text}")

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


class _Report(BaseCallback):
    """Evaluate a trial now and then, and give it up where others did better."""

    def __init__(self, search: _Search, trial: Trial) -> None:
        super().__init__()
        self.search = search
        self.trial = trial
        self.judged = 0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self.search.bar.set_postfix_str(f"{self.num_timesteps / self.search.steps:.0%} of a trial", refresh=False)
        self.search.bar.update(0)
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


def _backend(path: Path) -> JournalFileBackend:
    """Open a journal without Optuna's own lock, which a process that is killed would leave behind: the folder is held.

    Optuna's lock is a symbolic link to the path as it is given. With a relative one its age cannot be told, so that
    nobody ever breaks it.
    """
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    class Held(JournalFileOpenLock):
        def acquire(self) -> bool:
            return True

        def release(self) -> None:
            pass

    return JournalFileBackend(str(path), Held(str(path)))


def _cut_to_whole_lines(journal: Path) -> None:
    """Remove what a process that was killed, or a full disk, left of a journal's last line."""
    if journal.is_file():
        whole = journal.read_bytes().rfind(b"\n") + 1
        if whole < journal.stat().st_size:
            os.truncate(journal, whole)
