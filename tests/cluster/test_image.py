"""The image has the pinned packages by their hashes, the whole product, and no compiler."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.cluster.manifests import CLUSTER
from tests.cluster.versions import IMAGE_TAG, PIN, PINS, PROJECT, ROOT

DOCKERFILE = (CLUSTER / "Dockerfile").read_text()
REQUIREMENTS = (CLUSTER / "requirements.txt").read_text()
README = (CLUSTER / "README.md").read_text()


def instructions(keyword: str, text: str = DOCKERFILE) -> list[str]:
    """What follows the keyword, with continued lines joined."""
    joined = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [line.removeprefix(keyword).strip() for line in joined.splitlines() if line.startswith(f"{keyword} ")]


def stages() -> dict[str, str]:
    """The text of each stage by its name; of the last one, which is the image, by ""."""
    parts = re.split(r"^(?=FROM )", DOCKERFILE, flags=re.MULTILINE)[1:]
    return {(name[1] if (name := re.search(r" AS (\w+)", part)) else ""): part for part in parts}


def sources() -> list[str]:
    """What is copied from the repository."""
    return [name for copied in instructions("COPY") if "--from" not in copied for name in copied.split()[:-1]]


def test_every_package_has_a_hash_and_the_version_that_is_tested() -> None:
    entries = re.findall(r"^\S.*(?:\n    .*)*", REQUIREMENTS, re.MULTILINE)
    assert len(entries) > 100
    for entry in entries:
        assert re.fullmatch(r"[a-z0-9.-]+(\[.*\])?==\S+( ; .*)?( \\\n    --hash=sha256:[0-9a-f]{64})+", entry), entry
    listed = dict(PIN.findall(REQUIREMENTS))
    versions = {name: set(re.findall(rf"^{name}==([^\s;]+)", constraints(), re.MULTILINE)) for name in listed}
    assert all(version in versions[name] for name, version in listed.items())
    assert "://" not in REQUIREMENTS


def constraints() -> str:
    return (ROOT / "constraints.txt").read_text()


def test_every_package_that_the_product_asks_for_is_in_the_image() -> None:
    listed = dict(PIN.findall(REQUIREMENTS))
    extras = PROJECT["project"]["optional-dependencies"]
    for line in [*PROJECT["project"]["dependencies"], *extras["ray-up-gcp"]]:
        wanted = Requirement(line)
        assert wanted.specifier.contains(listed[wanted.name]), line
    assert not {"pytest", "ruff", "mypy", "moto"} & listed.keys()


@pytest.mark.slow
def test_the_packages_resolve_with_their_hashes_and_without_others(tmp_path: Path) -> None:
    """Asks the package index."""
    words = ["--dry-run", "--require-hashes", "--no-deps", "--python-version", "3.11", "--target", str(tmp_path)]
    uv = ROOT / ".venv/bin/uv"
    ended = subprocess.run(
        [uv, "pip", "install", *words, "--requirement", CLUSTER / "requirements.txt"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert f"+ torch=={PINS['torch']}" in ended.stderr


@pytest.mark.heavy
def test_the_bill_of_materials_is_that_of_the_image(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "cluster/requirements.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    environment = Path(sys.prefix)
    words = ["make", "sbom", f"VENV={environment}", f"--old-file={environment / '.ready'}"]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    bill = json.loads((tmp_path / "dist/sbom.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert {row["name"]: row["version"] for row in bill["components"]} == dict(PIN.findall(REQUIREMENTS))


def test_the_image_is_built_on_a_full_version_that_can_be_fixed_by_digest() -> None:
    arguments = dict(argument.split("=") if "=" in argument else (argument, "") for argument in instructions("ARG"))
    version = re.fullmatch(r"python:(3\.\d+)\.\d+-slim-[a-z]+", arguments["BASE"])
    assert version
    assert arguments["DIGEST"] == ""
    base = "${BASE}${DIGEST:+@$DIGEST}"
    assert [line.split(" AS ")[0] for line in instructions("FROM")] == [base, "packages", base]
    lowest = re.fullmatch(r">=(\d+\.\d+)", PROJECT["project"]["requires-python"])
    assert lowest
    assert tuple(map(int, version[1].split("."))) >= tuple(map(int, lowest[1].split(".")))
    assert f"| Python | {version[1]} |" in README


def test_what_the_image_copies_exists_and_is_sent() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(sources()) == sent
    for name in sources():
        assert (ROOT / name).exists(), name


def test_the_image_holds_the_whole_package() -> None:
    packages = {name.removesuffix("*") for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    metadata = {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    assert set(sources()) == packages | metadata | {"pyproject.toml", "cluster/requirements.txt"}


def test_packages_are_installed_by_hash_alone_and_apart_from_the_code() -> None:
    found = stages()
    assert list(found) == ["packages", "code", ""]
    installs = re.findall(r"pip install [^&|]*", found["packages"].replace("\\\n", " "))
    assert len(installs) == 2
    assert all("--require-hashes" in line for line in installs)
    assert "COPY vaal" not in found["packages"]
    assert "--no-deps --no-build-isolation" in found["code"]


def test_nothing_is_built_or_compiled_in_the_image_itself() -> None:
    image = stages()[""]
    assert "pip" not in image
    assert not re.search(r"\b(gcc|g\+\+|build-essential|make|git)\b", image)
    assert instructions("COPY", image) == ["--from=packages /usr/local /usr/local", "--from=code /opt/vaal /usr/local"]
    assert instructions("USER", image) == ["1000"]
    assert not instructions("ENTRYPOINT")


def test_setuptools_is_found_by_its_own_lines() -> None:
    [expression] = re.findall(r"sed -n '([^']+)'", DOCKERFILE)
    words = ["sed", "-n", expression, CLUSTER / "requirements.txt"]
    found = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert re.fullmatch(rf"setuptools=={PINS['setuptools']}( \\\n    --hash=\S+)+\n", found)


def test_the_readme_names_the_versions_that_are_pinned() -> None:
    tags = re.findall(r"/vaal:(\S+)", README)
    assert len(tags) >= 2
    assert set(tags) == {IMAGE_TAG}
    for row, name in {"Ray": "ray", "torch": "torch", "DeepSpeed": "deepspeed"}.items():
        assert re.search(rf"^\| {row} \| {re.escape(PINS[name])}[ ,]", README, re.MULTILINE), row
    cuda = PINS["cuda-toolkit"].partition(".")[0]
    assert f"| {PINS['torch']}, with its own CUDA {cuda} libraries |" in README


def test_the_readme_names_files_that_exist() -> None:
    named = set(re.findall(r"cluster/[\w./]+\w", README))
    assert {"cluster/Dockerfile", "cluster/kubernetes/site", "cluster/aws.yaml", "cluster/gcp.yaml"} <= named
    assert all((ROOT / name).exists() for name in named), named
