"""Settings of UniM²Rec: defaults, files, refusals."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
from transformers import AutoConfig

from seqkd.models.unim2rec import UniM2RecConfig
from seqkd.models.unisrec import UniSRecConfig

PAPERS = Path(__file__).resolve().parents[3] / "docs" / "papers.md"


def test_the_width_of_a_row_follows(tmp_path):
    config = UniM2RecConfig(modality_sizes={"image": 2, "text": 5})
    assert config.plm_size == 7 and config.sizes == [5, 2]
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(again, UniM2RecConfig) and again.sizes == [5, 2] and again.plm_size == 7
    assert UniM2RecConfig().modality_sizes is not UniM2RecConfig().modality_sizes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plm_size": 768}, "leave plm_size out"),
        ({"modality_sizes": {"text": 4}}, "one width for each"),
        ({"modalities": ["text", "text"]}, "distinct"),
        ({"modalities": [], "modality_sizes": {}}, "at least one"),
        ({"modality_sizes": {"text": 4, "image": 0}}, "at least 1"),
        ({"fusion": "sum"}, "moe_gate"),
        ({"fusion": "dynamic_shared", "cross_expert": True}, "cross_expert"),
        ({"modality_dropout": 1.0}, "modality_dropout"),
        ({"align_weight": -1.0}, "align_weight"),
        ({"similarity": "dot"}, "cosine"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(Exception, match=message):
        UniM2RecConfig(**changes)


def test_the_paper_page_names_every_setting_with_its_default():
    section = PAPERS.read_text(encoding="utf-8").partition("\n## UniM²Rec")[2].partition("\n## ")[0]
    told = {}
    for names, values in re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| ([^|]+) \|", section, re.MULTILINE):
        names, values = re.findall(r"\w+", names), values.replace("`", "").strip()
        told |= zip(names, values.split(", ") if len(names) > 1 else [values], strict=True)
    own = UniSRecConfig.__annotations__.keys() | UniM2RecConfig.__annotations__.keys()
    for field in fields(UniM2RecConfig):
        if field.name in own and field.name != "model_type":
            default = field.default if field.default is not MISSING else field.default_factory()
            value = told[field.name]
            assert (value if isinstance(default, str) else json.loads(value)) == default, field.name
