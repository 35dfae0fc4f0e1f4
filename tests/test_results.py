"""The pages of results say what the files of results hold."""

from pathlib import Path

import hidden_context
import numpy as np
import over_families
import over_features
import pytest
import results
import robustness
from numpy.testing import assert_allclose

from hyperrl import load_family
from hyperrl.evaluation import Report, Series, Split
from hyperrl.evaluation.statistics import interquartile_mean
from hyperrl.experiments.comparison import Comparison
from hyperrl.experiments.sweeps import read_sweep, sweep_table

ROOT = results.ROOT
SWEEPS: dict[str, list[Path]] = {}  # by the folder that they write to
for file in sorted((ROOT / "scripts" / "sweeps").glob("*.toml")):
    SWEEPS.setdefault(Path(sweep_table(file)["results"]).name, []).append(file)


@pytest.fixture(scope="module")
def every() -> dict[str, dict[str, Comparison]]:
    return results.load_all()


def test_the_tables_of_the_pages_are_those_of_the_files(every: dict[str, dict[str, Comparison]]) -> None:
    for page in results.PAGES:
        text = page.read_text(encoding="utf-8")
        assert results.BLOCK.search(text)
        assert results.filled(text, every) == text, "run scripts/results"


def test_the_tables_of_hidden_contexts_are_those_of_the_files() -> None:
    text = hidden_context.PAGE.read_text(encoding="utf-8")
    assert {match["name"] for match in results.BLOCK.finditer(text)} == hidden_context.TABLES.keys()
    assert hidden_context.filled(text) == text, "run scripts/hidden-context tables"


@pytest.mark.parametrize("source", SWEEPS)
def test_every_file_is_of_a_cell_of_the_sweep(source: str, every: dict[str, dict[str, Comparison]]) -> None:
    of = every.get(source, {}).values()
    reports = [report for comparison in of for each in comparison.reports.values() for report in each]
    reports = results._reports(results.AIB_ROBUST) if source == results.AIB_ROBUST.name else reports
    families = {report.family for report in reports}
    used = [file for file in SWEEPS[source] if not families.isdisjoint(sweep_table(file)["families"])]
    every_cell = [cell for file in used for cell in read_sweep(file)]
    cells = {(cell.family, cell.agent.name, cell.seed, cell.irrelevant): cell for cell in every_cell}
    for report in reports:
        assert report.training is not None
        agent = str(report.agent).removesuffix(results.HIDDEN)
        cell = cells[report.family, agent, int(report.seed or 0), report.irrelevant]
        assert not cell.training.differences(report.training)
        assert report.inference == cell.inference


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in results.TABLES
        if name.split()[0] not in ("headline", "suite", "aib", "aib-sac", "aib-mujoco", "mujoco")
    ],
)
def test_a_row_is_renewed_and_one_without_files_stays(name: str, every: dict[str, dict[str, Comparison]]) -> None:
    head, cells = results.TABLES[name]
    family = next(iter(every["agents"]))
    table = f"| head |\n| --- |\n| {family} | 1 | old |\n| elsewhere | 9 | 0.5 |"
    old = f"a\n<!-- results: {name} -->\n{table}\n<!-- end -->\nb"
    lines = results.filled(old, every).splitlines()
    assert (lines[0], lines[-1]) == ("a", "b")
    assert lines[2].count("|") == len(head) + 3
    assert lines[4].removesuffix(" |").split(" | ")[2:] == cells(every["agents"][family])
    assert "| elsewhere | 9 | 0.5 |" in lines


def test_scores_over_families_lie_between_random_actions_and_the_best_agent(tmp_path: Path) -> None:
    family = load_family("ode")
    contexts = family.context_space.sample("interpolation", over_families.CONTEXTS, 0)
    random = over_families.random_report("ode", tmp_path).splits["interpolation"]
    low = random.returns.mean(axis=1, keepdims=True)
    gain = np.linspace(20.0, 60.0, over_families.CONTEXTS)[:, None]
    gain[0] = 1.0  # nobody gains much there: a tenth of the median has score 1
    shares = {"hyper-ppo": 1.0, "adapter-ppo": 0.5, "film-ppo": 0.0, "concat-ppo": 0.2, "concat-slow-ppo": 0.3}
    reports = []
    for agent, share in shares.items():
        split = Split(contexts, low + share * gain)
        reports.append(Report("ode", {"interpolation": split, "extrapolation": split}, agent=agent, seed=1))
    scores, at = over_families.scored({"ode": Comparison(reports)}, "interpolation", tmp_path, over_families.AGENTS)
    assert_allclose(at["ode"], contexts)
    for agent, share in zip(over_families.AGENTS, (1.0, 0.5, 0.0, 0.3), strict=True):
        expected = np.full((1, len(contexts), 1), share)
        expected[:, 0] *= 1.0 / (0.1 * np.median(gain))
        assert_allclose(scores[agent]["ode"], expected, atol=1e-12)


@pytest.mark.parametrize("name", ["pendulum", "thermostat", "two_link_arm", "tanks"])
def test_one_feature_leaves_the_range_at_a_time(name: str) -> None:
    space = load_family(name).context_space
    for distance, contexts in over_features.points(space).items():
        beyond = space.beyond(contexts)
        assert_allclose(beyond.max(axis=1), distance, atol=1e-9)
        assert ((beyond > 0).sum(axis=1) <= 1).all()
        assert ((contexts != space.default).sum(axis=1) <= 1).all()
        assert space.in_bounds(contexts).all()
    assert len(over_features.points(space)[0.0]) == 2 * len(space)


def test_the_benchmark_takes_the_interquartile_mean_of_means_over_contexts() -> None:
    rng = np.random.default_rng(0)
    returns = {name: rng.uniform(0, 90, (4, 20, 10)) for name in ("ode", "double_integrator")}
    of = {}
    for name, played in returns.items():
        contexts = load_family(name).context_space.sample("mesh-extrapolation", 20)
        reports = [
            Report(name, {"mesh-extrapolation": Split(contexts, seed)}, agent="hyper-ppo", seed=i)
            for i, seed in enumerate(played)
        ]
        of[name] = Comparison(reports)
    page = "<!-- results: aib mesh-extrapolation -->\n| |\n| --- |\n<!-- end -->"
    rows = [line.split(" | ") for line in results.filled(page, {"aib": of}).splitlines()[3:-1]]
    of_seeds = [*returns["ode"].mean((1, 2)) / 200, *returns["double_integrator"].mean((1, 2)) / 100]
    assert [row[0].removeprefix("| ") for row in rows] == ["ode", "double_integrator", "all", "non-overlapping"]
    for row, of_row in zip(rows, (of_seeds[:4], of_seeds[4:], of_seeds, of_seeds), strict=True):
        assert_allclose(float(row[2].split()[0]), interquartile_mean(of_row), atol=5e-4)
        assert row[3] == "–"


def test_tables_of_wrong_contexts_and_irrelevant_features_are_of_the_right_trainings() -> None:
    """Of each agent, family and number of features its own; the level 0 is the true context's row."""
    contexts = load_family("ode").context_space.sample("mesh-train", 20)

    def report(n: int, share: float) -> Report:
        played = {split: Split(contexts, np.full((20, 10), 200 * share)) for split in robustness.SPLITS}
        wrong = Series(np.array([0.0, 0.5]), np.stack([np.full((20, 10), 200 * share), np.full((20, 10), 20 * share)]))
        perturbations = {"noise": wrong, "other": wrong}
        return Report("ode", played, agent="hyper-ppo", seed=1, irrelevant=n, perturbations=perturbations)

    reports = [report(0, 0.5), report(20, 0.25)]
    _, rows = robustness.irrelevant(reports)
    assert [(row[1], row[3].split()[0], row[4]) for row in rows] == [("0", "0.500", "–"), ("20", "0.250", "–")]
    _, rows = robustness.wrong(reports)
    assert [row[3].split()[0] for row in rows] == ["0.500", "0.050", "0.050"]


def test_means_are_of_other_trainings_where_both_agents_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    families = results.AIB_GROUPS["all"]
    monkeypatch.setitem(results.AIB_GROUPS, "ode", ("ode",))
    monkeypatch.setitem(results.AIB_GROUPS, "reacher", ("reacher_hard",))
    splits = [*results.MESH_SPLITS]

    def compared(name: str, algorithm: str, agents: tuple[str, ...], share: float) -> Comparison:
        family = load_family(name)
        contexts = family.context_space.sample("mesh-train", 2, 0)
        played = np.full((2, 1), share * (family.max_episode_steps or 1))
        made = {split: Split(contexts, played) for split in splits}
        return Comparison([Report(name, made, agent=f"{agent}-{algorithm}", seed=1) for agent in agents])

    ppo = {name: compared(name, "ppo", ("hyper", "concat"), 0.5) for name in families}
    ppo["reacher_hard_cos_sin"] = compared("reacher_hard_cos_sin", "ppo", ("hyper", "concat"), 0.7)
    both = {"ode": compared("ode", "sac", ("hyper", "concat"), 0.9)}
    one = {"ode": compared("ode", "sac", ("hyper",), 0.9)}
    for sac, expected in ((both, "0.900"), (one, "0.500"), ({}, "0.500")):
        _, rows = results.means({"aib": ppo, "aib-sac": sac})
        found = {(title, said): {cell.split()[0] for cell in cells} for title, said, *cells in rows}
        sets = ("PPO", "with SAC", "with SAC and `_cos_sin`")
        assert [found["ode", said] for said in sets] == [{"0.500"}, {expected}, {expected}]
        assert [found["reacher", said] for said in sets] == [{"0.500"}, {"0.500"}, {"0.700"}]
        assert found["all", "PPO"] == {"0.500"}
