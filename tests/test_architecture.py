"""The layers of the package: who imports whom, who alone imports what, and what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import arawn_llm
from arawn_llm import _providers

PACKAGE = Path(arawn_llm.__file__).parent
LAYERS = [
    {"errors", "_completion", "_deadline", "_events"},
    {"_hints"},
    {"_providers", "_toml", "_atomic", "_faults", "_messages", "_vectors", "_model_folder"},
    {"_schema", "_clients", "_layers"},
    {"_litellm"},
    {"_trust", "_secrets"},
    {"_config"},
    {"settings", "draft", "_vector_cache"},
    {"_resolve", "_oauth"},
    {"_credentials", "_reply", "auth", "_model_source", "_embedding_work"},
    {"_call", "_local"},
    {"_retry", "_models"},
    {"_stream", "_remote"},
    {"doctor", "keys"},
    {"_conversation"},
    {"_backend", "embeddings"},
]
ALONE = {
    "litellm": "_litellm",
    "keyring": "_secrets",
    "openai": "_litellm",
    "httpcore": "_deadline",
    "tomlkit": "_toml",
    "authlib": "client",
    "requests": "client",
    "filelock": "_atomic",
    "onnxruntime": "_local",
    "tokenizers": "_local",
    "sentence_transformers": "_local",
    "torch": "_model_source",
    "huggingface_hub": "_model_source",
    "tqdm": "_embedding_work",
    "sqlite3": "_vector_cache",
    "starlette": "_app",
    "uvicorn": "serve",
}
MODULES = sorted([*PACKAGE.glob("*.py"), *PACKAGE.glob("_oauth/*.py")])


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", [path for path in MODULES if path.stem != "__init__"], ids=lambda p: p.stem)
def test_a_module_imports_only_from_below(path: Path) -> None:
    own = path.stem if path.parent == PACKAGE else path.parent.name
    level = next(number for number, layer in enumerate(LAYERS) if own in layer)
    below = set().union(*LAYERS[:level]) | ({own} if path.parent != PACKAGE else set())
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("arawn_llm.")}
    assert ours <= below, f"{path.stem} may not import {ours - below}"


@pytest.mark.parametrize(("library", "home"), ALONE.items())
def test_each_library_has_one_importer(library: str, home: str) -> None:
    users = {p.stem for p in PACKAGE.rglob("*.py") if library in {n.split(".")[0] for n in imports(p)}}
    assert users == {home}


def test_the_public_names_are_the_truth() -> None:
    assert all(getattr(arawn_llm, name) for name in arawn_llm.__all__)
    assert set(arawn_llm._HOMES) | {"auth", "doctor", "draft", "errors", "keys", "settings"} == set(
        arawn_llm.__all__
    )


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        pytest.param(
            "import arawn_llm", {"litellm", "pydantic", "keyring", "openai", "httpx", "numpy"}, id="import"
        ),
        pytest.param(
            "import arawn_llm; arawn_llm.get_backend('ollama')",
            {"litellm", "keyring", "openai"},
            id="get_backend",
        ),
        pytest.param(
            "import arawn_llm; arawn_llm.get_backend('claude-oauth')",
            {"litellm", "keyring", "authlib", "requests", "filelock"},
            id="get_backend-login",
        ),
        pytest.param(
            "from arawn_llm.cli import arawn; arawn(['auth', '--help'], standalone_mode=False, prog_name='')",
            {"litellm", "pydantic", "keyring", "authlib", "requests"},
            id="help-auth",
        ),
        pytest.param(
            "from arawn_llm.cli import arawn; arawn(['serve', '--help'], standalone_mode=False, prog_name='')",
            {"litellm", "pydantic", "keyring", "starlette", "uvicorn"},
            id="help-serve",
        ),
        pytest.param(
            "from arawn_llm.cli import arawn; arawn(['ask', '--help'], standalone_mode=False, prog_name='')",
            {"litellm", "pydantic", "keyring"},
            id="ask-help",
        ),
        pytest.param(
            "from arawn_llm.cli import arawn; arawn(['--help'], standalone_mode=False, prog_name='')",
            {"litellm", "pydantic", "keyring", "arawn_llm.testing"},
            id="help",
        ),
    ],
)
def test_nothing_heavy_is_imported_early(statement: str, heavy: set[str]) -> None:
    code = f"{statement}\nimport sys\nprint(*(m for m in {sorted(heavy)} if m in sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()[-1] == ""


def test_a_backend_is_named_nowhere_but_in_its_row() -> None:
    keys = set(_providers.PROVIDERS)
    for path in PACKAGE.rglob("*.py"):
        if path.stem in {"_providers", "_schema"}:  # the schema names the tables of [embedding]
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                words = {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}
                assert not words & keys, f"{path.name}:{node.lineno}"
