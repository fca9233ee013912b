"""What a token is to Recformer before it is read in context."""

from __future__ import annotations

from torch import Tensor, nn

from .configuration_recformer import RecformerConfig
from .token_batch import TokenBatch


class RecformerEmbeddings(nn.Module):
    """Word + token position + token type + item position (arXiv:2305.13731, eq. 3), normalised."""

    def __init__(self, config: RecformerConfig) -> None:
        super().__init__()
        width, self.pad = config.hidden_size, config.pad_token_id or 0
        self.word_embeddings = nn.Embedding(config.vocab_size, width, padding_idx=self.pad)
        self.position_embeddings = nn.Embedding(config.max_token_positions, width, padding_idx=self.pad)
        self.token_type_embeddings = nn.Embedding(config.token_type_size, width)
        self.item_position_embeddings = nn.Embedding(config.max_item_embeddings, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, batch: TokenBatch) -> Tensor:
        mask = batch.attention_mask.long()
        positions = mask.cumsum(dim=1) * mask + self.pad
        states = self.word_embeddings(batch.input_ids) + self.position_embeddings(positions)
        states = states + self.token_type_embeddings(batch.token_type_ids)
        states = states + self.item_position_embeddings(batch.item_position_ids)
        return self.dropout(self.LayerNorm(states))
