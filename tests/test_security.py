"""What no file of the package may do, and what a hostile model folder must not achieve."""

from __future__ import annotations

import ast
import json
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel

from seqkd.models.sasrec import SASRecConfig, SASRecModel
from seqkd.trainer import DistillationTrainer

from .tiny import arguments, parts, tiny_distiller, tiny_sasrec, tiny_split

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py")) + sorted((ROOT / "examples").rglob("*.py"))
MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "pickletools"}
ALLOWED = {("inert_pickle.py", "pickletools")}  # it lists the instructions of a pickle and runs none
CALLS = {
    *("torch.load", "torch.jit.load", "torch.hub.load", "numpy.load"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load"),
}
BUILTINS = {"eval", "exec", "compile", "__import__"}


def crimes(code: str, name: str = "code.py") -> list[str]:
    """Imports and calls that are not allowed, under whatever name they were imported."""
    tree, found, alias = ast.parse(code), [], {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported = [item.name for item in node.names]
            for item in node.names:  # `import a.b` makes `a` known, `import a.b as c` makes `c` a name of `a.b`
                first = item.name.split(".")[0]
                alias[item.asname or first] = item.name if item.asname else first
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imported = [f"{node.module}.{item.name}" for item in node.names]
            alias |= {item.asname or item.name: f"{node.module}.{item.name}" for item in node.names}
        else:
            continue
        for module in imported:
            root = module.split(".")[0]
            if root in MODULES and (name, root) not in ALLOWED:
                found.append(f"import {module}")
    for node in ast.walk(tree):
        if isinstance(node, (ast.Name, ast.Attribute)):
            first, *rest = ast.unparse(node).split(".")
            full = ".".join([alias.get(first, first), *rest])
            if full in CALLS or full in BUILTINS:
                found.append(full)
        elif isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "allow_pickle"):
            if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                found.append(f"{node.arg}={ast.unparse(node.value)}")
        elif isinstance(node, ast.Dict):
            keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
            found += [key for key in keys if key == "trust_remote_code"]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_can_run_what_it_reads(path):
    assert crimes(path.read_text(encoding="utf-8"), path.name) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from pickle import loads", "import os, joblib as j", "import pickletools",
        "import dill.source", "import torch\ntorch.load(path)", "import torch as t\nt.load(path, weights_only=True)",
        "from torch import load\nload(path)", "from torch import load as read\nread(path)",
        "import numpy as np\nnp.load(path)", "import yaml\nyaml.load(text, yaml.SafeLoader)",
        "import torch\nload = torch.load", "eval('1')", "exec(code)", "__import__('os')",
        "Auto.from_pretrained(name, trust_remote_code=True)", "Auto.from_pretrained(name, trust_remote_code=flag)",
        "settings = {'trust_remote_code': True}", "np.array(x, allow_pickle=True)",
    ],
)  # fmt: skip
def test_the_scan_finds_what_it_looks_for(code):
    assert crimes(code)


def test_the_scan_lets_the_harmless_pass():
    code = "import yaml, json\nyaml.safe_load(text)\njson.load(file)\nmodel.eval()\nload(x, trust_remote_code=False)"
    assert crimes(code) == []
    assert len(SOURCES) > 50  # it looks at the right folder


# ---- hostile model folders ------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A good model, in the working directory of whatever payload may try to write."""
    monkeypatch.chdir(tmp_path)
    tiny_sasrec(tiny_split()).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


PAYLOAD = b"cbuiltins\nopen\n(S'owned'\nS'w'\ntR."  # a pickle that creates a file when it is loaded


def zipped(folder: Path, payload: bytes) -> None:
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", payload)
        archive.writestr("archive/version", "3\n")


@pytest.mark.parametrize("load", [AutoModel.from_pretrained, SASRecModel.from_pretrained])
@pytest.mark.parametrize("as_zip", [True, False])
def test_a_folder_with_nothing_but_a_pickle_is_refused_and_not_opened(folder, load, as_zip):
    (folder / "model.safetensors").unlink()
    if as_zip:
        zipped(folder, PAYLOAD)
    else:
        (folder / "pytorch_model.bin").write_bytes(PAYLOAD)
    with pytest.raises(OSError, match=r"model\.safetensors"):
        load(folder)
    assert not Path("owned").exists()


def test_the_payload_is_a_real_one(folder):
    """Or else the test above would prove nothing."""
    import pickle

    pickle.loads(PAYLOAD).close()
    assert Path("owned").exists()


def test_a_pickle_beside_safetensors_is_ignored(folder):
    (folder / "pytorch_model.bin").write_bytes(PAYLOAD)
    AutoModel.from_pretrained(folder)
    assert not Path("owned").exists()


def test_a_shard_index_of_pickles_is_refused(folder):
    (folder / "model.safetensors").unlink()
    zipped(folder, PAYLOAD)
    index = {"metadata": {}, "weight_map": {"item_embedding.weight": "pytorch_model.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(OSError, match=r"safetensors"):
        AutoModel.from_pretrained(folder)
    assert not Path("owned").exists()


def test_code_in_a_model_folder_is_never_imported(folder):
    """`auto_map` points to a file of the folder; our own class is used, for it knows the model type."""
    (folder / "hostile.py").write_text(
        "open('owned', 'w').close()\n"
        "from seqkd.models.sasrec import SASRecConfig as HostileConfig, SASRecModel as HostileModel\n"
    )
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["auto_map"] = {"AutoConfig": "hostile.HostileConfig", "AutoModel": "hostile.HostileModel"}
    path.write_text(json.dumps(config))
    assert type(AutoConfig.from_pretrained(folder)) is SASRecConfig
    assert type(AutoModel.from_pretrained(folder)) is SASRecModel
    assert not Path("owned").exists()


def test_code_of_an_unknown_model_type_is_not_imported_either(folder):
    (folder / "hostile.py").write_text("open('owned', 'w').close()\n")
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), "model_type": "mine", "auto_map": {"AutoConfig": "hostile.HostileConfig"}}
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoModel.from_pretrained(folder)
    assert not Path("owned").exists()


# ---- our own files --------------------------------------------------------------------------------------------------


def test_a_checkpoint_holds_no_pickle_but_what_resuming_needs(tmp_path):
    """`optimizer.pt`, `scheduler.pt` and `rng_state.pth` are transformers', of tensors, numbers and NumPy's state."""
    trainer = DistillationTrainer(
        tiny_distiller(tiny_split(), curriculum=None),
        arguments(tmp_path, max_steps=1, save_strategy="steps", save_steps=1),
        *parts(tiny_split()),
    )
    trainer.train()
    folder = tmp_path / "checkpoint-1"
    of_transformers = {"optimizer.pt", "scheduler.pt", "rng_state.pth"}
    files = {path.name for path in folder.rglob("*") if path.is_file()}
    assert of_transformers < files
    for name in files - of_transformers:
        assert Path(name).suffix in (".json", ".safetensors"), name
        if name.endswith(".json"):
            json.loads((folder / name).read_text())
        else:
            load_file(folder / name)
    for name in of_transformers:
        beyond_tensors = torch.serialization.get_unsafe_globals_in_checkpoint(folder / name)
        assert all(what.startswith(("numpy.", "_codecs.")) for what in beyond_tensors), (name, beyond_tensors)


def test_a_saved_model_holds_json_and_safetensors_alone(folder):
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "item_ids.json"}
