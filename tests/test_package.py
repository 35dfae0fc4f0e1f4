import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

from hyperrl.sharing import names as trained
from hyperrl.utils.definitions import names

ROOT = Path(__file__).parents[1]


def run(*command: object, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an sdist, and of a wheel built from it, as an index would get them."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    return out


@pytest.fixture
def wheel(built: Path) -> Path:
    (wheel,) = built.glob("*.whl")
    return wheel


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="git lists the files")
def test_the_sdist_holds_what_its_tests_need(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        held = {Path(*Path(name).parts[1:]).as_posix() for name in tar.getnames()}
    listed = run("git", "ls-files", cwd=ROOT).split("\n")
    assert set(filter(None, listed)) - held <= {".gitignore"}


def test_the_wheel_holds_code_and_definitions(wheel: Path) -> None:
    contents = zipfile.ZipFile(wheel).namelist()
    for kind in ("envs", "agents"):
        assert {f"hyperrl/{kind}/{name}.toml" for name in names(kind)} <= set(contents)
    for agent in trained():
        assert {f"hyperrl/trained/{agent}/{file}" for file in ("config.json", "model.safetensors")} <= set(contents)
    assert {"hyperrl/py.typed", "hyperrl/cli/main.py", "hyperrl/explorer/page.css", "hyperrl/explorer/page.js"} <= set(
        contents
    )
    tops = {name.split("/")[0] for name in contents}
    assert tops == {"hyperrl", next(top for top in tops if top.endswith(".dist-info"))}


def test_it_works_from_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    """Installed elsewhere, beside folders of the user's own called envs and agents."""
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    # The dependencies come from here; the checkout does not, since a path in a .pth file brings no further .pth files.
    site = next((tmp_path / "venv" / "lib").glob("*/site-packages"))
    (site / "dependencies.pth").write_text(str(Path(np.__file__).parents[1]))
    work = tmp_path / "work"
    for kind in ("envs", "agents"):
        (work / kind).mkdir(parents=True)
        (work / kind / "__init__.py").write_text("raise RuntimeError('the user\\'s own package')")
        (work / kind / "mine.toml").write_text("not a definition")
    assert str(site) in run(python, "-c", "import hyperrl; print(hyperrl.__file__)", cwd=work)
    listed = run(tmp_path / "venv" / "bin" / "hyperrl", "list", cwd=work)
    assert all(name in listed for name in (*names("envs"), *names("agents")))
    program = """
import hyperrl
for name in {families}:
    for agent in {agents}:
        hyperrl.training.agent_spec(agent)
    hyperrl.load_family(name).make().reset()
for name in {trained}:
    hyperrl.load_agent(name, "cpu")
model = hyperrl.train("pendulum", "hyper-ppo", steps=1, out="runs/x", device="cpu")
print(hyperrl.evaluate(model, hyperrl.load_family("pendulum"), contexts=2, episodes=1).splits["train"].mean)
""".format(families=names("envs"), agents=names("agents"), trained=trained())
    assert float(run(python, "-c", program, cwd=work)) < 0
    assert (work / "runs" / "x" / "model.zip").is_file()
