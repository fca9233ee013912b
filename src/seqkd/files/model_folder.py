"""What a folder, or a name on the Hub, says about its model, read before its weights are."""

from __future__ import annotations

import json
import os
from pathlib import Path

from huggingface_hub import is_offline_mode
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig

from ..errors import CheckpointError, SeqKDError

CONFIG = "config.json"


def config_of(name: str | os.PathLike, revision: str | None = None) -> PreTrainedConfig:
    """The configuration of the model in a folder or on the Hub.

    Raises:
        CheckpointError: there is no model; it names one that lies near.
        ConfigError: the model is one of ours, with a field that does not exist in this version or is out of range.
    """
    place = Path(name)
    if place.is_dir():
        _check_folder(place)
    elif place.exists():
        raise CheckpointError(f"{name} is a file. Give the folder of a model, which holds {CONFIG} and its weights.")
    elif place.parent != Path() and place.parent.is_dir():  # else the Hub would be asked for it
        inside = sorted(os.listdir(place.parent))
        raise CheckpointError(f"there is no {place.name} in {place.parent}, which holds {inside[:5]}.")
    try:
        return AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    except SeqKDError:
        raise
    except (OSError, ValueError, StrictDataclassError) as error:
        if place.is_dir():
            raise CheckpointError(f"{place / CONFIG} cannot be used: {' '.join(str(error).split())}") from error
        why = "HF_HUB_OFFLINE is set: cached ones only" if is_offline_mode() else str(error).partition("\n")[0]
        raise CheckpointError(
            f"there is no folder {str(name)!r}, and no such model of the Hub ({why}). Give the folder that a model was "
            "saved to, or its name on the Hub, user/name."
        ) from error


def _check_folder(folder: Path) -> None:
    fault = _fault_of(folder)
    if fault is None:
        return
    models = [str(path) for path in sorted(folder.iterdir()) if path.is_dir() and _fault_of(path) is None]
    hint = f"Did you mean {' or '.join(models[:3])}?" if models else "Give the folder that a model was saved to."
    raise CheckpointError(f"{folder} is not the folder of a model: {fault}. {hint}")


def _fault_of(folder: Path) -> str | None:
    """Why a folder is not that of a model; None where it seems to be one."""
    try:
        told = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return f"it has no {CONFIG}"
    except (OSError, ValueError, RecursionError) as error:
        return f"its {CONFIG} is damaged ({error})"
    if not isinstance(told, dict) or "model_type" not in told:
        return f"its {CONFIG} names no model_type"
    return None if any(folder.glob("*.safetensors")) else "it has no weights (model.safetensors)"
