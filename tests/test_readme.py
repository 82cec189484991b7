"""Every example of README.md and docs/ runs: Python as it stands, TOML as a configuration."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_model

import arawn_llm
from arawn_llm.testing import FakeBackend, use_backend

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(python|toml)\n(.*?)^```", re.M | re.S)
EXAMPLES = [
    pytest.param(kind, text, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, (kind, text) in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize(("kind", "text"), EXAMPLES)
def test_an_example_runs(kind: str, text: str, write: Callable[[str, str], Path], tmp_path: Path) -> None:
    if kind == "toml":
        assert arawn_llm.load_config(write("a.toml", text))
        return
    model = tiny_model.build(tmp_path / "model")
    write("xdg/arawn/config.toml", f'[embedding.local]\nmodel_path = "{model}"\n')
    with use_backend(FakeBackend(["Hello", "Once upon a time"]), "fast"):
        exec(compile(text, "example", "exec"), {"__name__": "example"})


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_reference_lists_every_error() -> None:
    text = (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8")
    assert [name for name in arawn_llm.errors.__all__ if name not in text] == ["Problem"]


@pytest.mark.parametrize("page", ["cli", "api"])
def test_a_generated_page_is_what_the_code_says(page: str) -> None:
    path = ROOT / "docs/generate.py"
    space: dict[str, object] = {"__name__": "generate", "__file__": str(path)}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), space)
    render = space[f"render_{page}"]
    assert callable(render)
    written = (ROOT / f"docs/reference/{page}.md").read_text(encoding="utf-8")
    assert written == render(), "run python docs/generate.py"
