"""The Python of README.md runs as it stands, on a tiny model and a tiny log."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from seqkd import Catalogue, SASRecConfig, SASRecModel, count_items
from tests.continual.small import market
from tests.tiny import tiny_split

README = Path(__file__).resolve().parents[1] / "README.md"


def script(name: str, folder: Path) -> Path:
    """The blocks marked with this name, one below the other, as a file."""
    blocks = re.findall(rf"<!-- test: {name} -->\n```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    file = folder / f"{name}.py"
    file.write_text("\n".join(blocks), encoding="utf-8")
    return file


def test_every_python_block_is_run():
    text = README.read_text(encoding="utf-8")
    assert text.count("```python") == len(re.findall(r"<!-- test: (?:model|distil|stream) -->\n```python", text))


def test_recommend_and_add_items(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = SASRecModel(SASRecConfig(num_items=40, hidden_size=8, intermediate_size=8, num_hidden_layers=1))
    model.set_catalogue(Catalogue(f"books-{i:05d}" for i in range(40)))
    model.save_pretrained("outputs/demo/books")
    names = runpy.run_path(str(script("model", tmp_path)))
    answer, grown = names["answer"], SASRecModel.from_pretrained("outputs/grown")
    assert [len(items) for items in answer.item_ids] == [5, 5]
    assert answer.from_popularity == [False, True]
    assert not {"books-00012", "books-00034"} & set(answer.item_ids[0])
    assert grown.item_ids[-1] == "books-sequel"
    table = grown.get_input_embeddings().weight
    assert table[41].equal(table[13])  # item 12 is row 13: row 0 is padding


@pytest.mark.slow
def test_distil_from_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    split = tiny_split()
    lines = ["user_id,item_id,timestamp"]
    for row in split.test:
        lines += [f"{row['user_id']},{item},{at}" for at, item in enumerate(split.catalogue.decode(row["item_ids"]))]
    (tmp_path / "my_folder").mkdir()
    (tmp_path / "my_folder" / "interactions.csv").write_text("\n".join(lines) + "\n")
    text = script("distil", tmp_path).read_text(encoding="utf-8")
    quick = text.replace("num_train_epochs=20", "num_train_epochs=2, use_cpu=True, disable_tqdm=True")
    assert quick != text
    (tmp_path / "quick.py").write_text(quick, encoding="utf-8")
    names = runpy.run_path(str(tmp_path / "quick.py"))
    assert names["knowledge"].num_queries == names["train"].num_queries
    student = SASRecModel.from_pretrained("my_student")
    assert student.config.hidden_size == 64
    assert count_items(split.train, 20).sum() == student.item_counts.sum()
    assert len(student.recommend([["item1"]], 3).item_ids[0]) == 3


def test_a_stream_from_a_log(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = market()["interactions"].to_pandas()[["user_id", "item_id", "timestamp"]]
    log.to_csv("my_log.csv", index=False)
    text = script("stream", tmp_path).read_text(encoding="utf-8")
    small = text.replace("ContinualConfig()", "config()").replace("blocks=5", "blocks=1")
    assert small.count("config()") == 1 and "blocks=1" in small
    (tmp_path / "small.py").write_text("from tests.continual.small import config\n" + small, encoding="utf-8")
    run = runpy.run_path(str(tmp_path / "small.py"))["run"]
    assert len(run.blocks) == 2 and (tmp_path / "outputs" / "market" / "report.md").is_file()
