"""Training arguments: transformers' own, with the defaults a recommender needs and the evaluation protocol."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import TrainingArguments

from .errors import ConfigError


@dataclass
class DistillationArguments(TrainingArguments):
    """`transformers.TrainingArguments` plus what defines the protocol.

    Args:
        history: `masked` leaves a user's history out of the ranking, `unmasked` ranks the whole catalogue.
        metric_ks: cut-offs of Recall, NDCG and MRR.
        tail_queries: let teachers answer the query after the last training item, which has no label.
        num_processes: the number of processes you asked the launcher for; a run that got another number stops.
    """

    output_dir: str | None = field(default="outputs")
    per_device_train_batch_size: int = field(default=256, metadata={"help": "Sequences, not queries."})
    per_device_eval_batch_size: int = 512  # the scores of a batch stay small enough for the memory to be reused
    learning_rate: float = 1e-3
    num_train_epochs: float = 100
    max_grad_norm: float = 0.0
    lr_scheduler_type: str = "constant"
    remove_unused_columns: bool = False
    logging_nan_inf_filter: bool = False  # a loss that is not finite stops the run instead
    ddp_broadcast_buffers: bool | None = False
    ddp_find_unused_parameters: bool | None = False
    dataloader_pin_memory: bool = False
    metric_for_best_model: str | None = "ndcg@10"
    greater_is_better: bool | None = True
    history: str = "masked"
    metric_ks: tuple[int, ...] = (10, 50)
    tail_queries: bool = False
    num_processes: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.push_to_hub or self.hub_token:
            raise ConfigError(
                "push with `seqkd push FOLDER NAME`; a token comes from `hf auth login`, never from settings."
            )
        if self.dataloader_persistent_workers:
            raise ConfigError(
                "dataloader_persistent_workers would keep what workers drew in the first epoch (negatives, queries). "
                "Leave it off."
            )
        self._n_gpu = min(self.n_gpu, 1)  # DataParallel would cut a packed batch; several devices want a launcher
        if self.history not in ("masked", "unmasked"):
            raise ConfigError(f"history must be 'masked' or 'unmasked', got {self.history!r}.")
        if self.num_processes is not None and self.num_processes != self.world_size:
            raise ConfigError(
                f"asked for num_processes={self.num_processes}, but the launcher started {self.world_size}. On CPU use "
                "`accelerate launch --multi_gpu --num_processes N ...` with use_cpu: true, or torchrun."
            )
