"""What we depend on is at least as new as its last known hole, in the table and on this machine."""

import importlib.metadata
import itertools
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

PROJECT = Path(__file__).parents[1] / "pyproject.toml"

# The first versions without what is named here; see SECURITY.md.
FLOORS = {
    "torch": ("2.10", "weights_only=True ran code up to 2.9.1"),
    "pillow": ("12.3", "decoders wrote and read beyond their buffers in earlier ones"),
    "urllib3": ("2.6.3", "a small answer could unpack into all memory"),
    "filelock": ("3.20.3", "locked through a planted link, and emptied what it leads to"),
    "ray": ("2.60", "let every machine of the network run code here; this one asks for a token"),
    "requests": ("2.32.4", "sent .netrc passwords to hosts that an address only seems to name"),
}


def requirements() -> dict[str, Requirement]:
    """Return what the project asks for, with and without its extras; of its own extras only the others' names."""
    project = tomllib.loads(PROJECT.read_text("utf-8"))["project"]
    table = itertools.chain(project["dependencies"], *project["optional-dependencies"].values())
    return {wanted.name: wanted for wanted in map(Requirement, table) if wanted.name != "lowlight-cli"}


def installed() -> set[str]:
    return {each.name for each in importlib.metadata.distributions() if each.name}


@pytest.mark.parametrize("name", FLOORS)
def test_the_project_asks_for_no_version_below_the_floor(name: str) -> None:
    floor, why = FLOORS[name]
    lowest = [Version(each.version) for each in requirements()[name].specifier if each.operator == ">="]
    assert lowest, f"{name} has no lower bound"
    assert lowest[0] >= Version(floor), why


@pytest.mark.parametrize("name", sorted(set(requirements()) & installed()))
def test_what_is_installed_is_what_the_project_asks_for(name: str) -> None:
    version = Version(importlib.metadata.version(name).partition("+")[0])
    assert version in requirements()[name].specifier, f"{name} {version} is installed"
