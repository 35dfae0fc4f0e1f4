"""Write the tables and pictures of the results from the files of results that `hyperrl sweep` has left."""

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import over_families
import over_features
import robustness
import tyro
from estimates import numbers, shown, whole

from hyperrl.contexts import MESH_SPLITS, SPLITS
from hyperrl.evaluation import Report
from hyperrl.evaluation.pooling import pooled_iqm
from hyperrl.evaluation.report import HIDDEN
from hyperrl.evaluation.statistics import estimate_gap, estimate_improvement, estimate_iqm
from hyperrl.experiments.comparison import Comparison, PooledComparison, compare_by_family
from hyperrl.report import plots
from hyperrl.report.markdown import markdown_table
from hyperrl.utils.files import write_text

ROOT = Path(__file__).parents[1]
FILES = ROOT / "docs" / "results" / "agents"
SUITE = FILES.parent / "suite"
AIB = FILES.parent / "aib"
AIB_SAC = FILES.parent / "aib-sac"
AIB_HIDDEN = FILES.parent / "aib-hidden"
AIB_MUJOCO = FILES.parent / "aib-mujoco"
AIB_ROBUST = FILES.parent / "aib-robust"
MUJOCO = FILES.parent / "mujoco"
RANDOM = FILES.parent / "random"
PAGES = (*(ROOT / "docs" / f"{name}.md" for name in ("results", "extrapolation", "aib", "mujoco")), ROOT / "README.md")
AGENTS = (
    "hyper-ppo",
    "hyper-full-ppo",
    "adapter-ppo",
    "film-ppo",
    "concat-ppo",
    "concat-slow-ppo",  # concat-ppo with half its learning rate
    "unaware-ppo",
)
SAC_AGENTS = ("hyper-sac", "concat-sac")
HEADLINE = ("hyper-ppo", "adapter-ppo", "film-ppo", "concat-ppo", "unaware-ppo")
NEEDED = {*HEADLINE, "concat-slow-ppo"}
SEEDS = 5
BLOCK = re.compile(r"(<!-- results: (?P<name>[\w -]+) -->\n)(?P<table>.*?)(<!-- end -->)", re.DOTALL)

Cell = Callable[[Comparison, str], str]
"""Makes an entry of a table of a comparison and the name of an agent in it."""


def main(check: bool = False) -> None:
    """Write the tables of the pages, and the pictures in docs/results/.

    A row of a family without five seeds of each agent stays as it is. In the tables of the suite, of AIB and of MuJoCo,
    all seeds count.

    Args:
        check: Write nothing, and fail where a table differs.
    """
    results = load_all()
    comparisons = results["agents"]
    texts = {page: page.read_text("utf-8") for page in PAGES}
    stale = {page: new for page, text in texts.items() if (new := filled(text, results)) != text}
    if check:
        sys.exit(f"run scripts/results: other figures in {', '.join(map(str, stale))}" if stale else 0)
    for page, new in stale.items():
        write_text(page, new)
        print(f"Wrote {page}")
    for name, comparison in comparisons.items():
        plots.save(plots.plot_curves(comparison.curves), FILES.parent / f"curves-{name}.png")
    if len(comparisons) > 1:
        thresholds = np.linspace(-0.2, 1.1, 131)
        profiles = PooledComparison(list(comparisons.values())).profiles(thresholds)
        plots.save(plots.plot_profiles(thresholds, profiles, "score"), FILES.parent / "profiles.png")


def load(folder: Path = FILES) -> dict[str, Comparison]:
    """Read the files of results: a comparison by family, of families with enough seeds of each agent."""
    reports = _reports(folder)
    trained = Counter((report.family, report.agent) for report in reports)
    enough = [report for report in reports if trained[report.family, report.agent] >= SEEDS]
    every = compare_by_family(enough) if enough else []
    return {comparison.family.name: comparison for comparison in every if comparison.reports.keys() >= NEEDED}


def load_seeds(folder: Path) -> dict[str, Comparison]:
    """Read files of results: a comparison by family, of as many seeds as there are."""
    reports = _reports(folder)
    return {comparison.family.name: comparison for comparison in compare_by_family(reports)} if reports else {}


def load_all() -> dict[str, dict[str, Comparison]]:
    """Read all files of results: a comparison by source and family."""
    by_seeds = {"suite": SUITE, "mujoco": MUJOCO, "aib": AIB}
    by_seeds |= {"aib-sac": AIB_SAC, "aib-hidden": AIB_HIDDEN, "aib-mujoco": AIB_MUJOCO}
    return {"agents": load()} | {name: load_seeds(folder) for name, folder in by_seeds.items()}


def _reports(folder: Path) -> list[Report]:
    reports = [Report.load(path) for path in sorted(folder.glob("*.json"))]
    order = {name: i for i, name in enumerate((*AGENTS, "aligned-ppo", *SAC_AGENTS))}
    return sorted(reports, key=lambda report: order[str(report.agent).removeprefix("mujoco-").removesuffix(HIDDEN)])


def filled(text: str, results: Mapping[str, Mapping[str, Comparison]]) -> str:
    """Renew the tables between ``<!-- results: NAME -->`` and ``<!-- end -->``.

    :param results: comparisons by source and family. A table whose name begins with a source's has that one's rows,
        others those of ``"agents"``.
    """

    def renew(match: re.Match[str]) -> str:
        name, old = match["name"], match["table"].splitlines()
        if (over := _over(name, results)) is not None:
            return match[1] + markdown_table(*over) + "\n" + match[4]
        head, cells = TABLES[name]
        kept = {line.split("|")[1].strip(): line for line in old[2:]}
        source = name.split()[0]
        of = results.get(source if source in results else "agents", {})
        rows = {family: [family, seeds(c), *row] for family, c in of.items() if {*(row := cells(c))} != {"–"}}
        for title, families in AIB_GROUPS.items() if name in AIB_SPLITS else ():
            group = [comparison for family, comparison in of.items() if family in families]
            if len(group) > 1:
                rows[title] = [title, "", *benchmark(AIB_AGENTS, AIB_SPLITS[name])(*group)]
        made = {key: markdown_table(row, []).splitlines()[0] for key, row in rows.items()}
        every = sorted((kept | made).items(), key=lambda row: row[0] in AIB_GROUPS)  # means stand below
        table = [*markdown_table(("family", "seeds", *head), []).splitlines(), *(line for _, line in every)]
        return match[1] + "\n".join(table) + "\n" + match[4]

    return BLOCK.sub(renew, text)


def _over(name: str, results: Mapping[str, Mapping[str, Comparison]]) -> over_families.Table | None:
    """Return a table over several families, ``None`` where each row is of one."""
    if name == "aib means":
        return means(results)
    if name == "aib hidden":
        return hidden(results)
    if name == "aib irrelevant":
        return robustness.irrelevant(_reports(AIB_ROBUST))
    if name == "aib wrong":
        return robustness.wrong(_reports(AIB_ROBUST))
    if name == "features":
        return over_features.table(SUITE_AGENTS)
    if name.startswith("over bodies "):
        return over_families.table_of_bodies(name.split()[-1], results.get("mujoco", {}), RANDOM)
    if name.startswith("over families "):
        small = {**results.get("agents", {}), **results.get("suite", {})}
        return over_families.table(name.split()[-1], small, RANDOM)
    return None


def seeds(comparison: Comparison) -> str:
    """Say how many trainings there are of each agent."""
    return numbers(map(len, comparison.reports.values()))


def each(agents: Iterable[str], cell: Cell) -> Callable[[Comparison], list[str]]:
    """Make a row: an entry for each agent, a dash where it was not trained often enough."""
    return lambda comparison: [cell(comparison, agent) if agent in comparison.agents else "–" for agent in agents]


def score(split: str) -> Cell:
    return lambda comparison, agent: shown(estimate_iqm(comparison.values(agent, split)))


def known_score(split: str) -> Cell:
    """The score on a split whose contexts have references, beside others that have none."""

    def cell(comparison: Comparison, agent: str) -> str:
        scores = comparison.scores(agent, split)
        return shown(estimate_iqm(scores)) if scores.size else "–"

    return cell


def gap(split: str) -> Cell:
    return lambda comparison, agent: shown(estimate_gap(comparison.values(agent, split)))


def returns(split: str) -> Cell:
    return lambda comparison, agent: shown(estimate_iqm(comparison.returns(agent, split)))


def whole_returns(*splits: str) -> Cell:
    """The return over all contexts of some splits."""

    def cell(comparison: Comparison, agent: str) -> str:
        played = np.concatenate([comparison.returns(agent, split) for split in splits], axis=1)
        return whole(estimate_iqm(played))

    return cell


def improvement(split: str) -> Cell:
    """How probably hyper-ppo is better."""
    return lambda comparison, agent: shown(
        estimate_improvement(comparison.returns("hyper-ppo", split), comparison.returns(agent, split))
    )


def better_concat(agents: Iterable[str], cell: Cell) -> Callable[[Comparison], list[str]]:
    """Make a row in which ``concat-ppo`` has of its two learning rates the one with the higher score outside."""

    def row(comparison: Comparison) -> list[str]:
        concat = [name for name in comparison.agents if name.startswith("concat")]
        best = max(concat, key=lambda name: estimate_iqm(comparison.values(name, "extrapolation")).value)
        return each([best if agent == "concat-ppo" else agent for agent in agents], cell)(comparison)

    return row


def benchmark(agents: Iterable[str], splits: Iterable[str]) -> Callable[..., list[str]]:
    """Make a row of one or several families as AIB does.

    The mean return over contexts and episodes is divided by what a reward of 1 at each step would give. Of the numbers
    of all seeds and families, the interquartile mean is taken.
    """

    def row(*group: Comparison) -> list[str]:
        cells = []
        for agent in agents:
            is_everywhere = all(agent in comparison.agents for comparison in group)
            each_share = [_shares(comparison, agent, splits) for comparison in group if is_everywhere]
            cells.append(shown(pooled_iqm(each_share)) if is_everywhere else "–")
        return cells

    return row


def _shares(comparison: Comparison, agent: str, splits: Iterable[str]) -> np.ndarray:
    """Return the returns by what a reward of 1 at each step would give, ``(seeds, 1, contexts · episodes)``."""
    played = np.concatenate([comparison.returns(agent, split) for split in splits], axis=1)
    return played.reshape(len(played), 1, -1) / (comparison.family.max_episode_steps or 1)


def hidden(results: Mapping[str, Mapping[str, Comparison]]) -> over_families.Table:
    """Make AIB's table of agents that are not told the context, beside the same trainings told it."""
    trained = {
        family: next((comparison, agent) for agent in comparison.agents)
        for family, comparison in results.get("aib-hidden", {}).items()
    }

    def told(family: str) -> np.ndarray:
        """The shares outside of those trainings that are hidden, too, ``(seeds, 1, contexts · episodes)``."""
        comparison, agent = trained[family]
        name, seeds = agent.removesuffix(HIDDEN), [report.seed for report in comparison.reports[agent]]
        of = results["aib-sac" if name in SAC_AGENTS else "aib"][family]
        found = [report.seed in seeds for report in of.reports[name]]
        return _shares(of, name, MESH_SPLITS[2:])[found]

    def row(title: str, agent: str, families: Iterable[str]) -> list[str]:
        shares = [[_shares(*trained[family], (split,)) for family in families] for split in MESH_SPLITS]
        shares.append([told(family) for family in families])
        return [title, agent, *(shown(pooled_iqm(each_family)) for each_family in shares)]

    rows = [row(family, f"`{agent.removesuffix(HIDDEN)}`", (family,)) for family, (_, agent) in trained.items()]
    for title, families in AIB_GROUPS.items():
        if {*families} <= trained.keys():
            rows.append(row(title, "", families))
            others = tuple(_named(family) if _named(family) in trained else family for family in families)
            if others != families:
                rows.append(row(f"{title}, with `_cos_sin`", "", others))
    return ("family", "agent", *(f"`{split}`" for split in MESH_SPLITS), f"`{MESH_SPLITS[2]}`, told"), rows


def means(results: Mapping[str, Mapping[str, Comparison]]) -> over_families.Table:
    """Make AIB's means over environments of three sets of trainings.

    They are PPO's, PPO's with SAC's where there are some, and these with the Reachers whose angle is observed as cosine
    and sine.
    """
    kinds = ("hyper", "concat")
    columns = [(kind, split) for split in (MESH_SPLITS[2], MESH_SPLITS[0]) for kind in kinds]
    sources = {"PPO": (), "with SAC": ("sac",), "with SAC and `_cos_sin`": ("sac", "cos_sin")}

    def trained(family: str, wanted: Iterable[str]) -> tuple[Comparison, str]:
        """Return the wanted trainings, and their algorithm, where there are some of both agents, else PPO's."""
        found = {"sac": (results["aib-sac"].get(family), "sac"), "cos_sin": (results["aib"].get(_named(family)), "ppo")}
        for comparison, algorithm in (found[source] for source in wanted):
            if comparison is not None and {f"{kind}-{algorithm}" for kind in kinds} <= {*comparison.agents}:
                return comparison, algorithm
        return results["aib"][family], "ppo"

    rows = []
    for title, families in AIB_GROUPS.items():
        for said, wanted in sources.items():
            group = [trained(family, wanted) for family in families]
            shares = [
                [_shares(of, f"{kind}-{algorithm}", (split,)) for of, algorithm in group] for kind, split in columns
            ]
            rows.append([title, said, *(shown(pooled_iqm(each_family)) for each_family in shares)])
    return ("environments", "trainings", *(f"{kind}, `{split}`" for kind, split in columns)), rows


def _named(family: str) -> str:
    """Return what a family is called that observes cosine and sine in the place of an angle."""
    return f"{family}_cos_sin"


def _titles(agents: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"`{agent}`" for agent in agents)


OUTSIDE = "extrapolation"
SUITE_AGENTS = ("hyper-ppo", "adapter-ppo", "film-ppo", "concat-ppo", "concat-slow-ppo")
GAPS = ("hyper-ppo", "hyper-full-ppo", "adapter-ppo", "film-ppo", "concat-ppo")
BODY_AGENTS = tuple(f"mujoco-{agent}" for agent in (*SUITE_AGENTS, "unaware-ppo"))
AIB_AGENTS = (*SUITE_AGENTS, "unaware-ppo", "aligned-ppo")
AIB_BODY_AGENTS = ("hyper-ppo", "concat-ppo")
AIB_SPLITS = {**{f"aib {split}": (split,) for split in MESH_SPLITS}, "aib aggregated": MESH_SPLITS}
"""The splits of each table that follows AIB's protocol."""
_OVERLAPPING = ("double_integrator_friction", "ball_in_cup_catch", "walker_walk")
_INVERTED = (
    "ode",
    "double_integrator",
    "double_integrator_permuted",
    "cartpole_balance",
    "cheetah_run",
    "reacher_easy",
    "reacher_hard",
    "reacher_hard_permuted",
)
AIB_GROUPS = {"all": _OVERLAPPING + _INVERTED, "overlapping": _OVERLAPPING, "non-overlapping": _INVERTED}
"""The families over which AIB takes a mean: those on which one behaviour does well in every context, and the others."""
TABLES: dict[str, tuple[tuple[str, ...], Callable[[Comparison], list[str]]]] = {
    "headline": (_titles(HEADLINE), better_concat(HEADLINE, score(OUTSIDE))),
    **{f"scores {split}": (_titles(AGENTS), each(AGENTS, score(split))) for split in SPLITS},
    "gap": (_titles(GAPS), better_concat(GAPS, gap(OUTSIDE))),
    "returns": (_titles(HEADLINE), better_concat(HEADLINE, returns(OUTSIDE))),
    **{f"suite {split}": (_titles(SUITE_AGENTS), each(SUITE_AGENTS, returns(split))) for split in SPLITS[1:]},
    **{f"mujoco {split}": (_titles(BODY_AGENTS), each(BODY_AGENTS, whole_returns(split))) for split in SPLITS[1:]},
    **{name: (_titles(AIB_AGENTS), benchmark(AIB_AGENTS, splits)) for name, splits in AIB_SPLITS.items()},
    **{f"aib {split}": (_titles(AIB_AGENTS), each(AIB_AGENTS, known_score(split))) for split in SPLITS[1:]},
    **{
        name.replace("aib", "aib-sac"): (_titles(SAC_AGENTS), benchmark(SAC_AGENTS, splits))
        for name, splits in AIB_SPLITS.items()
    },
    **{
        name.replace("aib", "aib-mujoco"): (_titles(AIB_BODY_AGENTS), each(AIB_BODY_AGENTS, whole_returns(*splits)))
        for name, splits in AIB_SPLITS.items()
    },
    "improvement": (_titles(HEADLINE[1:]), better_concat(HEADLINE[1:], improvement(OUTSIDE))),
}
"""What each table of the pages holds: the head of its columns, and what makes a row of a family."""


if __name__ == "__main__":
    tyro.cli(main)
