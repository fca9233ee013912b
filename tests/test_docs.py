"""docs/papers.md keeps up with the code: every method, and every switch with its default."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from seqkd import CKDMDSRConfig, Curriculum
from seqkd.methods import METHODS
from seqkd.models.recformer import CausalRecformerConfig, RecformerConfig

ROOT = Path(__file__).resolve().parents[1]
PAPERS = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
DISTILLATION = PAPERS.partition("\n## SASRec")[0]  # later sections have settings of the same names


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_its_section_and_its_line_in_the_readme(name):
    number = METHODS[name].paper.split(":")[-1]
    assert number in PAPERS and number in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("config", [CKDMDSRConfig, Curriculum])
def test_every_switch_stands_in_a_table_with_its_default(config):
    rows = {row[1]: row[2].strip(" `") for row in re.finditer(r"^\| `(\w+)` \|([^|]*)\|", DISTILLATION, re.MULTILINE)}
    for field in fields(config):
        if field.name in ("curriculum", "stages"):  # a section of its own; the steps of `pacing: stages`
            continue
        default = str(field.default).lower()
        assert rows[field.name].lower().lstrip("+") == default, field.name


@pytest.mark.parametrize(
    ("config", "section"), [(RecformerConfig, "Recformer"), (CausalRecformerConfig, "Causal Recformer (ours)")]
)
def test_every_field_of_a_model_stands_in_its_section_with_its_default(config, section):
    text = PAPERS.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    rows = {}
    for names, defaults in re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|([^|]*)\|", text, re.MULTILINE):
        rows |= dict(zip(re.findall(r"\w+", names), re.findall(r"[^\s`,]+", defaults), strict=True))
    own = set(config.__annotations__) - {"model_type"}
    assert rows.keys() == own
    for name in own:
        default = getattr(config(), name)
        if isinstance(default, int | float) and not isinstance(default, bool):
            assert float(rows[name]) == default, name
        else:
            assert rows[name].lower() == str(default).lower(), name


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/papers.md"])
def test_links_lead_to_files(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)\)", text):
        assert ((ROOT / name).parent / target).exists(), target
