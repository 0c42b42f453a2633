"""README and docs: commands, flags, imports, paths and links that exist; README is short."""

import ast
import importlib
import re
import shlex
import textwrap
from pathlib import Path

import pytest

import download
import main
from anogan.cli.parser import EXAMPLES, parse, parser

ROOT = Path(main.__file__).parent
MANUAL = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [*MANUAL, *(ROOT / f"{name}.md" for name in ("CHANGELOG", "CONTRIBUTING", "SECURITY"))]
PAGES += sorted(path for folder in ROOT.iterdir() for path in folder.glob("README.md"))
PAGES = [page for page in dict.fromkeys(PAGES) if not page.parent.name.startswith(".")]
OTHERS = {"--data", "--data-binary", "--logdir", "--preload"}  # of curl, tensorboard, gunicorn

pytestmark = pytest.mark.unit


def commands(script):
    """The words after `python SCRIPT` wherever the manual or --help gives such a command."""
    text = "\n".join(path.read_text() for path in MANUAL) + EXAMPLES
    for line in re.findall(rf"python\S* {re.escape(script)} (.*)", text):
        yield shlex.split(re.split(r" \||   |`", line)[0], comments=True)


def blocks(page):
    """Its blocks of code, fenced or indented, without the indent."""
    text = page.read_text()
    yield from re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    for block in re.findall(r"(?:(?:^ {4}.*|^)\n)+", text, re.MULTILINE):
        yield textwrap.dedent(block)


def anchors(page):
    """The headings of a page as GitHub makes links of them."""
    headings = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_command_of_main_is_valid():
    found = list(commands("main.py"))
    assert len(found) > 30
    for words in found:
        if words != ["--help"]:
            parse(words)


def test_every_command_of_download_is_valid():
    found = list(commands("download.py"))
    assert len(found) > 5
    for words in found:
        if words != ["--help"]:
            download.parse_arguments(words)


def test_every_flag_is_one_of_a_script():
    known = set(parser()._option_string_actions) | OTHERS
    for script in (ROOT / "download.py", *(ROOT / "benchmarks").glob("*.py")):
        known |= set(re.findall(r'"(--[\w-]+)"', script.read_text()))
    for page in MANUAL:
        flags = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", page.read_text()))
        assert flags <= known, f"{page.name}: {sorted(flags - known)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            there = (page.parent / path).resolve() if path else page
            assert there.exists(), target
            assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_of_the_repository_exists(page):
    text = re.sub(r"\]\([^)]*\)|\S*://\S*|/path/to/\S*|your_program.py", " ", page.read_text())
    names = re.findall(r"(?<![\w./-])(?:anogan|benchmarks|docs|tests)/[\w./-]*\w/?", text)
    names += re.findall(r"(?<![\w./-])[\w-]+\.(?:py|toml|txt)\b", text)
    made = {"suspicious.txt"}
    for name in set(names) - made:
        beside = (page.parent, ROOT, ROOT / "benchmarks")
        assert any((folder / name).exists() for folder in beside), name


def test_what_examples_import_exists():
    found = 0
    for block in (block for page in MANUAL for block in blocks(page) if "import " in block):
        for line in re.findall(r"^(?:from|import) .*", block, re.MULTILINE):
            (node,) = ast.parse(line).body
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in (
                "anogan",
                "model",
            ):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), line
                found += 1
    assert found >= 4


def test_readme_and_pictures_are_small():
    assert (ROOT / "README.md").stat().st_size <= 10_000
    pictures = list((ROOT / "docs").glob("*.png"))
    assert pictures and all(path.stat().st_size < 150_000 for path in pictures)
    for path in pictures:
        assert any(path.name in page.read_text() for page in MANUAL), path.name
