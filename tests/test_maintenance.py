"""What the maintainers' files say agrees with the package."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import metadata
from pathlib import Path

import yaml

import hyperrl

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_version_stands_in_one_place() -> None:
    assert "version" in PROJECT["project"]["dynamic"]
    assert metadata("hyperrl")["Version"] == hyperrl.__version__


def test_the_workflow_runs_every_python_that_the_package_claims() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["test"]
    claimed = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"]))
    assert job["strategy"]["matrix"]["python"] == claimed
    assert PROJECT["project"]["requires-python"] == f">={claimed[0]}"
    assert {"run": "scripts/test"} in job["steps"]


def test_the_hooks_need_no_network(tmp_path: Path) -> None:
    config = ROOT / ".pre-commit-config.yaml"
    subprocess.run([sys.executable, "-m", "pre_commit", "validate-config", config], check=True, cwd=tmp_path)
    (repository,) = yaml.safe_load(config.read_text(encoding="utf-8"))["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        tool = Path(hook["entry"].split()[0])
        assert any(re.match(rf"{tool.name}\b", wanted) for wanted in PROJECT["project"]["optional-dependencies"]["dev"])


def test_the_changelog_and_the_citation_know_the_package() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{hyperrl.__version__}]" in changelog or f"will be {hyperrl.__version__}" in changelog
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # what the format requires
    assert citation["license"] == PROJECT["project"]["license"]
    assert citation.get("version", hyperrl.__version__) == hyperrl.__version__


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 120


def test_every_pinned_requirement_is_within_its_range() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    extras = PROJECT["project"]["optional-dependencies"].values()
    for text in [*PROJECT["project"]["dependencies"], *(wanted for extra in extras for wanted in extra)]:
        requirement = Requirement(text)
        if requirement.name != "hyperrl":
            assert pins[canonicalize_name(requirement.name)] in requirement.specifier, text
