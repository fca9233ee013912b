"""Models whose files are whole or refused: weights that are all there and finite, beside the ids of their items."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel
from transformers.utils import cached_file

from ..catalogue import FILE_NAME, Catalogue
from ..errors import CheckpointError
from ..files import hub
from .configuration import RecommenderConfig

HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


class CheckpointedModel(PreTrainedModel):
    """Base of `RecommenderModel`: how a model is saved, loaded and pushed, with the external ids of `catalogue`."""

    config: RecommenderConfig

    def __init__(self, config: RecommenderConfig) -> None:
        super().__init__(config)
        self.catalogue: Catalogue | None = None

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:  # type: ignore[override]
        """As in transformers, with `item_ids.json` beside the weights. Refuses what could not be loaded again.

        Raises:
            CheckpointError: weights are not finite.
            ConfigError: the configuration has been given a name that is no field.
        """
        self.config.check_names()
        self._check_finite(f"{self.__class__.__name__} is not saved to {save_directory}")
        super().save_pretrained(save_directory, **kwargs)
        if self.catalogue is not None and kwargs.get("is_main_process", True):
            self.catalogue.save(save_directory)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """As in transformers, from a folder or the Hub, but never partly: safetensors only, all tensors, all finite.

        Raises:
            CheckpointError: tensors are missing, superfluous, of another shape or not finite, or the id list has
                another length than the item table.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        kwargs["use_safetensors"] = True
        kwargs["ignore_mismatched_sizes"] = True  # so that a mismatch is reported below, with both shapes
        name = pretrained_model_name_or_path
        if os.path.isdir(name) and (Path(name) / hub.INDEX).is_file():
            hub.weight_files(Path(name))  # transformers itself would follow an index out of a local folder
        try:
            loaded: Any = super().from_pretrained(name, *args, output_loading_info=True, **kwargs)
        except SafetensorError as error:
            raise CheckpointError(
                f"{name}: model.safetensors is cut or damaged ({error}). Copy it again, or take an earlier checkpoint."
            ) from error
        model, info = loaded
        for problem in ("missing_keys", "mismatched_keys", "unexpected_keys"):
            if info[problem]:
                raise CheckpointError(
                    f"{name}: {problem.replace('_', ' ')} in model.safetensors: {sorted(map(str, info[problem]))[:5]}. "
                    "The weights do not belong to this config.json; take both from the same checkpoint."
                )
        model._check_finite(f"{name} is not loaded")
        model.catalogue = ids_beside(name, FILE_NAME, "items", model.config.num_items, kwargs)
        return (model, info) if wants_info else model

    def push_to_hub(  # type: ignore[override]
        self,
        repo_id: str,
        *,
        card: str | os.PathLike | None = None,
        private: bool = True,
        token: str | None = None,
        revision: str | None = None,
    ) -> str:
        """Upload weights, ids and the card; returns the commit's address.

        Args:
            card: folder to which `write_card` wrote; by default the folder this model was loaded from.

        Raises:
            CheckpointError: there is no card. Others: see `hub.push`.
        """
        source = Path(card if card is not None else self.name_or_path or ".")
        if not (source / hub.CARD).is_file():
            raise CheckpointError(
                f"there is no {hub.CARD} in {source}. Write one with write_card(folder, ...), then card=folder."
            )
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(source / hub.CARD, folder)
            if (source / hub.EVAL_RESULTS).is_dir():
                shutil.copytree(source / hub.EVAL_RESULTS, Path(folder, hub.EVAL_RESULTS))
            self.save_pretrained(folder)
            return hub.push(folder, repo_id, private=private, token=token, revision=revision)

    def _check_finite(self, what: str) -> None:
        for name, tensor in self.state_dict().items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise CheckpointError(f"{what}: {name} holds NaN or infinite values. Go back to an earlier checkpoint.")


def ids_beside(name: Any, file: str, of: str, count: int, hub_arguments: Mapping[str, Any]) -> Catalogue | None:
    """The external ids `file` beside the weights `name`, in a folder or on the Hub; None where there are none.

    Args:
        of: `items` or `users`, of which the configuration says that there are `count`.

    Raises:
        CheckpointError: there are more or fewer.
    """
    where = {key: hub_arguments[key] for key in HUB_ARGUMENTS if key in hub_arguments}
    path = cached_file(name, file, _raise_exceptions_for_missing_entries=False, **where)
    if path is None:
        return None
    ids = Catalogue.load(path)
    if len(ids) != count:
        raise CheckpointError(
            f"{name}: {file} lists {len(ids)} {of}, config.json says num_{of}={count}. Take both from the same "
            "checkpoint."
        )
    return ids
