"""A BERT that answers claims: the encoder, and one linear map from the final hidden state at CLS to a logit."""

from typing import Any

from torch import nn
from transformers import BertConfig, BertModel, BertPreTrainedModel


class FactChecker(BertPreTrainedModel):
    """BERT with a fact-checking head (section 5): no pooler, one log-odds of SUPPORTS.

    Saved by ``save_pretrained`` as an ordinary directory; ``from_pretrained`` reads it, or any BERT directory, whose
    head is then newly drawn.
    """

    config: BertConfig

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        # Not "classifier": that is what BERTs for other tasks call theirs, which must not be taken for this one.
        self.fact_head = nn.Linear(config.hidden_size, 1)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, **inputs: Any) -> Any:
        """Return the (B, 1) log-odds of SUPPORTS for ``input_ids`` and ``attention_mask`` of (B, T)."""
        return self.fact_head(self.bert(**inputs).last_hidden_state[:, 0])
