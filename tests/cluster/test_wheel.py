"""The wheel runs without the repository."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from engine.simulation.demo_pools import DemoPool
from tests.cluster.versions import PROJECT, ROOT

PACKAGES = ("vaal", "engine", "jobs")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make dist` builds of a copy of the sources."""
    folder = tmp_path_factory.mktemp("sources")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, folder)
    environment = Path(sys.prefix)
    words = ["make", "dist", f"VENV={environment}", f"--old-file={environment / '.ready'}"]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    [built] = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment with the wheel, and with the packages of this one but not the editable product."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    [site] = folder.glob("lib/python*/site-packages")
    # A path in a .pth file is searched, and its own .pth files are not read: that of the editable install is one.
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))
    uv = Path(sys.prefix) / "bin/uv"
    words = [uv, "pip", "install", "--quiet", "--no-deps", "--offline", "--python", folder / "bin/python", wheel]
    subprocess.run(words, check=True)
    return folder


def run(installed: Path, folder: Path, *words: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    ended = subprocess.run(
        [installed / "bin" / words[0], *words[1:]],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.slow
def test_every_file_of_the_packages_is_in_the_wheel(wheel: Path) -> None:
    wanted = {
        str(path.relative_to(ROOT))
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == wanted
    assert {"engine/report/report.html.j2", "vaal/py.typed"} <= packed


@pytest.mark.slow
def test_the_wheel_runs_in_another_folder(installed: Path, pool: DemoPool, tmp_path: Path) -> None:
    where = run(installed, tmp_path, "python", "-c", "import engine; print(engine.__file__)")
    assert Path(where.strip()).is_relative_to(installed)
    assert run(installed, tmp_path, "vaal", "--version").split() == ["vaal", PROJECT["project"]["version"]]
    assert "round" in run(installed, tmp_path, "vaal", "demo", "--help")
    settings = [word for setting in pool.settings for word in ("--set", setting)]
    labels = ("--labels", str(pool.labels), *settings)
    run(installed, tmp_path, "vaal", "init", "campaign", "--pool", pool.shards[0], *labels)
    state = json.loads(run(installed, tmp_path, "vaal", "status", "campaign", "--json"))
    assert state["campaign"] == str(tmp_path / "campaign")
    # Templates and schemas are files of the packages, or made by them.
    code = "from engine.report.page import *; from engine.handoff.formats.records import schemas; print(len(schemas()))"
    assert run(installed, tmp_path, "python", "-c", code).strip() == "2"
