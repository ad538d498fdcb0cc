"""The wall between engine and plugins (DESIGN section 2): neither side reaches through it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROVIDERS = re.compile(r"\b(twilio|stripe|sendgrid|slack|discord|sms|ticket|vip|stock)s?\b", re.IGNORECASE)


def modules(folder: str) -> Iterator[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, f"no modules under {folder}"
    yield from found


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module or ""


@pytest.mark.parametrize("path", list(modules("sixfbd")), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_engine_imports_no_plugin(path):
    assert [name for name in imports(path) if name.split(".")[0] == "sixfbd_plugins"] == []


@pytest.mark.parametrize("path", list(modules("plugins")), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_plugin_imports_only_the_plugin_module_of_the_engine(path):
    ours = {name for name in imports(path) if name.split(".")[0] == "sixfbd"}
    assert ours <= {"sixfbd.plugin"}


@pytest.mark.parametrize("path", list(modules("sixfbd")), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_engine_names_no_provider_in_its_code(path):
    tree = ast.parse(path.read_text("utf-8"))
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    named = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            named |= {match[0] for match in PROVIDERS.finditer(node.value)}
        elif isinstance(node, ast.Name):
            named |= {match[0] for match in PROVIDERS.finditer(node.id.replace("_", " "))}
    assert named - allowed(path) == set()


def allowed(path: Path) -> set[str]:
    """The users' own words in the defaults of the configuration and of /api/health (SEED S17, S19)."""
    if path.name in ("initial.py", "health.py") or path.parts[-2:] == ("config", "tables.py"):
        return {"sms", "slack", "discord", "stripe", "twilio", "sendgrid"}
    return set()
