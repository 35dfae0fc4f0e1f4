"""Sweeps: families × agents × seeds, each cell a run folder and a small file of results."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hyperrl.evaluation.protocol import evaluate
from hyperrl.evaluation.report import Curve, Report, Settings
from hyperrl.experiments.counting import CountSteps
from hyperrl.experiments.engines import Engine, LocalEngine, Outcome, State, Task
from hyperrl.families.family import Family, load_family
from hyperrl.families.switching import switch_steps
from hyperrl.inference import InferringAgent, infer_context
from hyperrl.inference.agent import reader_of
from hyperrl.inference.record import STEPS, SWITCH, Learning
from hyperrl.training.loop import train
from hyperrl.training.models import build
from hyperrl.training.recipe import AgentSpec, agent_spec
from hyperrl.training.record import ESTIMATOR, HIDDEN_EVALUATION, Training, changes
from hyperrl.training.run import Run
from hyperrl.utils.definitions import build as build_definition
from hyperrl.utils.definitions import read_toml
from hyperrl.utils.errors import nearest
from hyperrl.utils.files import write_text

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

CURVE_POINTS = 40
DIGITS = 6  # of a return in a file of results


@dataclass(frozen=True)
class SweepDefinition:
    """What the file of a sweep says.

    Its key ``like`` names another sweep's file in its folder, whose keys stand where it has none.

    :param families: names or paths; paths are relative to the file.
    :param agents: names or paths of recipes, or tables with ``recipe``, ``name`` and ``set``: overrides of that agent.
    :param steps: environment steps of each training, or a table of them by family.
    :param seeds: how many trainings of each agent, with seeds from 0, or a list of seeds.
    :param set: overrides of all agents, see :func:`~hyperrl.training.agent_spec`.
    :param contexts: train on a fixed set of that many contexts; a fresh one each episode by default.
    :param split: where these contexts come from, see :meth:`ContextSpace.sample`; those of ``"train"`` are drawn by the
        seed of the training.
    :param irrelevant: numbers of irrelevant features, each of which makes cells of its own.
    :param evaluate: arguments of :func:`hyperrl.evaluate`, such as ``contexts`` and ``episodes``.
    :param infer: arguments of :func:`hyperrl.infer_context`: ``steps``, ``contexts``, ``switch``. Each agent learns to
        infer its context by them, with the seed of its training, and is then evaluated without being told.
    :param results: folder for the files of results, relative to the file.
    """

    families: list
    agents: list
    steps: int | dict
    seeds: int | list = 5
    set: dict = field(default_factory=dict)
    contexts: int | None = None
    split: str = "train"
    irrelevant: list = field(default_factory=lambda: [0])
    evaluate: dict = field(default_factory=dict)
    infer: dict | None = None
    results: str | None = None


@dataclass(frozen=True)
class InferDefinition:
    """What the table ``infer`` of a sweep's file says: arguments of :func:`hyperrl.infer_context`.

    :param switch: as there; ``[]`` for never, since TOML has no null.
    """

    steps: int = STEPS
    contexts: str = "train"
    switch: int | list = field(default_factory=lambda: [*SWITCH])


@dataclass(frozen=True)
class Cell:
    """One training of a sweep, and its evaluation.

    :param family: name of the family, or the path of its file.
    :param agent: the recipe with its overrides.
    :param seed: seed of the training.
    :param steps: environment steps.
    :param contexts: number of fixed contexts, or which, or ``None``.
    :param irrelevant: number of irrelevant features.
    :param evaluation: arguments of :func:`hyperrl.evaluate`.
    :param inference: how it learns to infer its context; ``None`` where it is told.
    """

    family: str
    agent: AgentSpec
    seed: int
    steps: int
    contexts: int | tuple[tuple[float, ...], ...] | None
    irrelevant: int
    evaluation: Mapping[str, Any]
    inference: Learning | None = None

    @property
    def name(self) -> str:
        """What the cell's run folder and file of results are called."""
        suffix = f"-irrelevant{self.irrelevant}" if self.irrelevant else ""
        return f"{Path(self.family).stem}-{self.agent.name}{suffix}-{self.seed}"

    def load_family(self) -> Family:
        """Load the family, with its irrelevant features."""
        return load_family(self.family).with_irrelevant(self.irrelevant)

    @cached_property
    def training(self) -> Training:
        """What is trained."""
        return Training.of(self.load_family(), self.agent, self.steps, self.seed, self.contexts)

    def evaluation_path(self, run: Run) -> Path:
        """Return where the evaluation lies in the cell's run folder."""
        return run.evaluation_path if self.inference is None else run.path / HIDDEN_EVALUATION

    @property
    def evaluated(self) -> dict[str, Any]:
        """What is evaluated, and how: splits, inference, and each of :class:`~hyperrl.evaluation.Settings`."""
        arguments = inspect.signature(evaluate).bind(None, None, **self.evaluation)
        arguments.apply_defaults()
        levels = {kind: tuple(values) for kind, values in (arguments.arguments["perturbations"] or {}).items()}
        given = arguments.arguments | {"perturbations": levels}
        found = {"splits": tuple(given["splits"]), "inference": self.inference}
        return found | {key.name: given[key.name] for key in fields(Settings)}


@dataclass(frozen=True)
class SweepState:
    """How far a sweep is.

    :param cells: number of cells.
    :param done: how many are finished, those of earlier calls among them.
    :param failed: how many failed.
    :param running: names of those under way.
    :param steps: environment steps taken in this call.
    :param remaining: environment steps that this call still has to take, at most.
    """

    cells: int
    done: int
    failed: int
    running: tuple[str, ...]
    steps: int
    remaining: int


@dataclass(frozen=True)
class SweepResult:
    """What became of a sweep.

    :param reports: the evaluation of each finished cell, by its name.
    :param errors: the error of each failed cell, by its name.
    """

    reports: Mapping[str, Report]
    errors: Mapping[str, BaseException]


def read_sweep(path: str | Path) -> list[Cell]:
    """Read the file of a sweep and return its cells.

    :raises ValueError: for a faulty file, saying file, key and what is valid; families, recipes and overrides are
        checked too.
    """
    return _read(Path(path))[0]


def _read(path: Path) -> tuple[list[Cell], Path | None]:
    """Return the cells of a sweep's file and the folder of results that it names."""
    table = sweep_table(path)
    try:
        definition = build_definition(SweepDefinition, table)
        return cells(definition, path.parent), None if definition.results is None else path.parent / definition.results
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def sweep_table(path: Path) -> dict[str, Any]:
    """Return the keys of a sweep's file, with those of the file that it is ``like``.

    :raises ValueError: where either cannot be read, and where ``like`` is no file in the same folder.
    """
    table = read_toml(path)
    like = table.pop("like", None)
    if like is None:
        return table
    if not isinstance(like, str) or Path(like).name != like:
        raise ValueError(
            f"{path}: 'like' must name a sweep's file in the same folder, such as 'aib.toml', got {like!r}"
        )
    other = read_toml(path.parent / like)
    if "like" in other:
        raise ValueError(f"{path}: 'like' names {like!r}, which is like {other['like']!r} itself: name that")
    return other | table


def cells(definition: SweepDefinition, folder: str | Path = ".") -> list[Cell]:
    """Return the cells of a sweep.

    :param folder: what paths in the definition are relative to.
    :raises ValueError: for faulty families, recipes, overrides, steps or seeds.
    """
    families = [_located(name, folder) for name in _listed(definition.families, "families")]
    for family in families:
        load_family(family)
    agents = [_agent(entry, definition.set, folder) for entry in _listed(definition.agents, "agents")]
    names = [agent.name for agent in agents]
    if len(set(names)) < len(names):
        raise ValueError(f"'agents' must have names of their own, as in {{recipe = …, name = …}}, got {names}")
    seeds = definition.seeds if isinstance(definition.seeds, list) else list(range(definition.seeds))
    if not seeds or any(type(seed) is not int or seed < 0 for seed in seeds):
        raise ValueError(f"'seeds' must be a number ≥ 1, or a list of seeds ≥ 0, got {definition.seeds}")
    valid = ("splits", *(key.name for key in fields(Settings)))
    for key in definition.evaluate:
        if key not in valid:
            raise ValueError(f"'evaluate': unknown key {key!r}: the keys are {list(valid)}.{nearest(key, valid)}")
    points = {(f, k): _contexts(definition, f, k) for f in families for k in definition.irrelevant}
    made = [
        Cell(
            family,
            agent,
            seed,
            _steps(definition, family),
            points[family, irrelevant],
            irrelevant,
            dict(definition.evaluate),
            _inference(definition.infer, seed),
        )
        for seed in seeds  # first, so that an interrupted sweep has as many trainings of one agent as of another
        for family in families
        for irrelevant in definition.irrelevant
        for agent in agents
    ]
    for cell in made:
        if cell.seed == seeds[0]:  # faults are named before any training begins
            model = build(cell.load_family(), cell.agent, cell.seed, cell.contexts, "cpu")
            if cell.inference is not None:
                reader_of(model)
    return made


def sweep(
    source: str | Path | Sequence[Cell],
    out: str | Path | None = None,
    *,
    engine: Engine | None = None,
    results: str | Path | None = None,
    watch: Callable[[SweepState], None] | None = None,
) -> SweepResult:
    """Train and evaluate every cell of a sweep.

    A cell that is finished is left as it is, an interrupted one resumed. One that fails does not stop the others.

    :param source: the file of a sweep, or its cells.
    :param out: folder for the run folders; ``runs/<name of the file>`` by default.
    :param engine: where the cells run; on this machine, one a core, by default.
    :param results: folder for a small file of results of each cell, which stands for the cell wherever there is one:
        on another machine a sweep goes on from these. That which the file names by default.
    :param watch: called with the state about twice a second.
    :raises ValueError: for a faulty file, and for a run folder or a file of results of another training or evaluation.
    """
    if isinstance(source, str | Path):
        found, named = _read(Path(source))
        out = Path("runs") / Path(source).stem if out is None else Path(out)
        results = named if results is None else results
    else:
        found = list(source)
        if out is None:
            raise ValueError("expected 'out', the folder for the run folders, where cells are given")
        out = Path(out)
    files = {cell.name: None if results is None else Path(results) / f"{cell.name}.json" for cell in found}
    reports = {cell.name: report for cell in found if (report := _finished(cell, out, files[cell.name])) is not None}
    missing = [cell for cell in found if cell.name not in reports]
    errors: dict[str, BaseException] = {}

    def tell(state: State) -> None:
        if watch is not None:
            running = tuple(missing[i].name for i in sorted(state.running))
            taken = sum(state.steps)
            ended = reports.keys() | errors.keys()
            left = sum(
                max(cell.steps - steps, 0)
                for cell, steps in zip(missing, state.steps, strict=False)
                if cell.name not in ended
            )
            watch(SweepState(len(found), len(reports), len(errors), running, taken, left))

    tasks = [Task((cell,), out / cell.name) for cell in missing]
    with closing((engine or LocalEngine()).run(run_cell, tasks, tell)) as outcomes:
        for outcome in outcomes:
            cell = missing[outcome.index]
            report = _take(cell, outcome, out, files[cell.name], errors)
            if report is not None:
                reports[cell.name] = report
    return SweepResult({cell.name: reports[cell.name] for cell in found if cell.name in reports}, errors)


def run_cell(cell: Cell, out: Path) -> None:
    """Train and evaluate a cell, as far as that has not been done."""
    family = cell.load_family()
    if not out.exists():
        train(
            family,
            cell.agent,
            cell.steps,
            cell.seed,
            out,
            contexts=cell.contexts,
            resume=True,
            device="auto",
            callback=CountSteps(),
        )
    run = Run.open(out)
    path = cell.evaluation_path(run)
    if not path.exists():
        model: Any = run.model("auto")
        if cell.inference is not None:
            model = _inferring(model, cell.inference, run)
        report = evaluate(model, family, **cell.evaluation)
        report.of(run.training).save(path)


def _inferring(model: BaseAlgorithm, learning: Learning, run: Run) -> InferringAgent:
    """Return the agent that infers its context, by the estimator in its folder or one that it learns now.

    :raises ValueError: where the estimator in the folder was learnt otherwise.
    """
    path = run.path / ESTIMATOR
    if not path.exists():
        agent = infer_context(model, run.family, **vars(learning))
        agent.save(path)
        return agent
    agent = InferringAgent.load(path, model)
    if agent.learning != learning:
        raise ValueError(f"{path} was learnt by {agent.learning}, not by {learning}: remove it to learn another")
    return agent


def _take(
    cell: Cell, outcome: Outcome[None], out: Path, file: Path | None, errors: dict[str, BaseException]
) -> Report | None:
    """Return the report of a cell that has just ended, or note its error, in a file beside its folder too."""
    log = out / f"{cell.name}.error.txt"
    try:
        if outcome.error is not None:
            raise outcome.error
        report = _finished(cell, out, file)
    except Exception as error:
        errors[cell.name] = error
        write_text(log, "".join(traceback.format_exception(error)))
        return None
    log.unlink(missing_ok=True)
    return report


def _finished(cell: Cell, out: Path, file: Path | None) -> Report | None:
    """Return the report of a cell that is finished, and write its file of results where that is missing.

    :raises ValueError: where the file or the folder is of another training or evaluation.
    """
    if file is not None and file.is_file():
        return _of_cell(cell, Report.load(file), file)
    folder = out / cell.name
    if not folder.is_dir():
        return None
    run = Run.open(folder)
    if differences := cell.training.differences(run.training):
        raise ValueError(f"{folder} holds another training: {'; '.join(differences)}. Choose another folder with out")
    path = cell.evaluation_path(run)
    if not path.is_file():
        return None
    report = _of_cell(cell, Report.load(path), path)
    if file is not None:
        small(report, run).save(file)
    return report


def _of_cell(cell: Cell, report: Report, path: Path) -> Report:
    if report.training is None:
        raise ValueError(f"{path} does not say what was trained, so it cannot stand for {cell.name}")
    if differences := cell.training.differences(report.training):
        raise ValueError(f"{path} is of another training: {'; '.join(differences)}")
    found = {"splits": tuple(report.splits), "inference": report.inference}
    found |= {} if report.settings is None else vars(report.settings)
    if differences := changes(found, cell.evaluated):
        raise ValueError(f"{path} is of another evaluation: {'; '.join(differences)}. Remove it to evaluate again")
    return report


def small(report: Report, run: Run) -> Report:
    """Return what a file of results keeps of an evaluation: returns by split and perturbation, the learning curve."""
    steps, returns = run.learning_curve()
    curve = None
    if len(steps):
        grid = np.linspace(steps[0], steps[-1], min(CURVE_POINTS, len(steps)))
        curve = Curve(grid.round(), _rounded(np.interp(grid, steps, returns)))
    splits = {
        name: replace(split, returns=_rounded(split.returns), values=None) for name, split in report.splits.items()
    }
    perturbations = {
        kind: replace(series, returns=_rounded(series.returns)) for kind, series in report.perturbations.items()
    }
    return replace(report, splits=splits, plane=None, sensitivity={}, perturbations=perturbations, curve=curve)


def _rounded(values: Any) -> Any:
    """Round to significant digits, so that a file of results is small."""
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 has no digits
        scale = 10.0 ** (DIGITS - 1 - np.floor(np.log10(np.abs(values))))
        return np.where(np.isfinite(scale), np.round(values * scale) / scale, values)


def _agent(entry: Any, common: Mapping[str, Any], folder: str | Path) -> AgentSpec:
    if isinstance(entry, str):
        return agent_spec(_located(entry, folder), common)
    if not isinstance(entry, dict) or "recipe" not in entry:
        raise ValueError(f"an entry of 'agents' must be a name, or a table with the key 'recipe', got {entry!r}")
    valid = ("recipe", "name", "set")
    for key in entry:
        if key not in valid:
            raise ValueError(f"'agents': unknown key {key!r}: the keys are {list(valid)}.{nearest(key, valid)}")
    spec = agent_spec(_located(entry["recipe"], folder), {**common, **entry.get("set", {})})
    return replace(spec, name=entry.get("name", spec.name))


def _contexts(definition: SweepDefinition, family: str, irrelevant: int) -> int | tuple[tuple[float, ...], ...] | None:
    """Return how many fixed contexts there are on a family, or which."""
    if definition.split == "train":
        return definition.contexts
    if definition.contexts is None:
        raise ValueError(f"'split' = {definition.split!r} says where 'contexts' come from: give their number too")
    space = load_family(family).with_irrelevant(irrelevant).context_space
    return tuple(map(tuple, space.sample(definition.split, definition.contexts).tolist()))


def _inference(table: Mapping[str, Any] | None, seed: int) -> Learning | None:
    """Return how the agents of a seed learn to infer their context, by the table of a sweep's file."""
    if table is None:
        return None
    given = build_definition(InferDefinition, table, "'infer': ")
    switch = None if given.switch == [] else switch_steps(given.switch)
    return Learning(given.steps, seed, given.contexts, switch)


def _steps(definition: SweepDefinition, family: str) -> int:
    name = Path(family).stem
    steps = definition.steps
    if isinstance(steps, dict):
        if name not in steps:
            raise ValueError(f"'steps' does not say how many for {name!r}: it has {list(steps)}.{nearest(name, steps)}")
        steps = steps[name]
    if type(steps) is not int or steps < 1:
        raise ValueError(f"'steps' must be whole numbers ≥ 1, got {steps!r}")
    return steps


def _listed(entries: list, key: str) -> list:
    if not entries:
        raise ValueError(f"{key!r} is empty")
    return entries


def _located(name: Any, folder: str | Path) -> str:
    """Return a name as it is, and the path of a file relative to ``folder``."""
    if not isinstance(name, str):
        raise ValueError(f"expected the name of a definition or the path of a .toml file, got {name!r}")
    return str(Path(folder) / name) if Path(name).suffix == ".toml" else name
