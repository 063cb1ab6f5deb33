"""What a release consists of: one version, a citation, a container, and a wheel and an sdist that install and run."""

import ast
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
import yaml

from fbnetv5 import __version__

ROOT = Path(__file__).parent.parent
PACKAGES = ("export", "fbnetv5", "latency")
PAPERS = ("2111.10007", "2008.10292", "2006.02049")


def project() -> dict[str, object]:
    document: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return document


def test_the_version_is_in_one_place() -> None:
    assert project()["dynamic"] == ["version"]
    assert "version" not in project()
    tree = ast.parse((ROOT / "fbnetv5" / "__init__.py").read_text(encoding="utf-8"))
    (value,) = [node.value for node in tree.body if isinstance(node, ast.Assign)]
    assert ast.literal_eval(value) == __version__
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", __version__)


def test_the_citation_names_the_papers_of_the_three_methods() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation.keys() >= {"cff-version", "message", "title", "authors"}
    assert citation["license"] == project()["license"]
    assert [reference["url"].rpartition("/")[2] for reference in citation["references"]] == list(PAPERS)
    if (validator := tool("cffconvert")) is not None:
        subprocess.run([validator, "--validate"], cwd=ROOT, check=True)


def test_the_container_runs_the_command_as_another_user_than_root() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    last_stage = lines[max(number for number, line in enumerate(lines) if line.startswith("FROM ")) :]
    (user,) = [line.split()[1] for line in last_stage if line.startswith("USER ")]
    assert int(user) > 0
    assert 'ENTRYPOINT ["fbnetv5"]' in last_stage
    if (linter := tool("hadolint")) is not None:
        subprocess.run([linter, "Dockerfile"], cwd=ROOT, check=True)


def test_the_container_is_built_of_what_the_wheel_needs() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert kept >= {*PACKAGES, "pyproject.toml", "README.md", "LICENSE"}


def tool(name: str) -> str | None:
    """A program beside this Python, or on the path, if it is installed."""
    return shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.mark.slow
def test_the_wheel_holds_the_packages_and_the_demo_data_and_no_tests(built: Path) -> None:
    (wheel,) = built.glob("fbnetv5-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in PACKAGES:
        files = {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*") if path.suffix in (".py", ".png")}
        assert files <= names
        assert f"{package}/py.typed" in names
    info = f"fbnetv5-{__version__}.dist-info"
    assert names >= {f"{info}/licenses/LICENSE", f"{info}/licenses/fbnetv5/data/assets/LICENSES.md"}
    assert {name.split("/")[0] for name in names} == {*PACKAGES, info}
    check_metadata(message_from_bytes(zipfile.ZipFile(wheel).read(f"{info}/METADATA")))


@pytest.mark.slow
def test_the_sdist_holds_what_the_wheel_is_built_of_and_no_tests(built: Path) -> None:
    (sdist,) = built.glob("fbnetv5-*.tar.gz")
    with tarfile.open(sdist) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
        metadata = file.extractfile(f"fbnetv5-{__version__}/PKG-INFO")
        assert metadata is not None
        check_metadata(message_from_bytes(metadata.read()))
    assert names >= {"pyproject.toml", "LICENSE", "CHANGELOG.md", "CITATION.cff", "SECURITY.md", "fbnetv5/api.py"}
    assert not {name.split("/")[0] for name in names} & {"tests", "benchmarks", "tools", "docs"}


def check_metadata(metadata: Message) -> None:
    """What a package index checks of a distribution: a version, a licence, and a description that it can render."""
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata["Requires-Python"] == ">=3.11"
    assert str(metadata.get_payload()).strip()
    extras = project()["optional-dependencies"]
    assert isinstance(extras, dict)
    assert set(metadata.get_all("Provides-Extra", [])) == set(extras)


@pytest.mark.slow
def test_the_wheel_runs_in_a_fresh_environment(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("fbnetv5-*.whl")
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(wheel)],
        check=True,
    )
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "requirements.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    code = "import fbnetv5; print(fbnetv5.__file__)"
    printed = subprocess.check_output([python, "-c", code], cwd=tmp_path, text=True)
    assert Path(printed.strip()) == site / "fbnetv5" / "__init__.py"
    for arguments in (["--help"], ["show", "fbnetv3-a"]):
        command = [str(python.with_name("fbnetv5")), *arguments]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
