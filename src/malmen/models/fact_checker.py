"""A BERT that checks claims: the encoder, and a linear map from the last hidden state at [CLS] to one logit."""

from typing import Any

from torch import nn
from transformers import BertConfig, BertModel, BertPreTrainedModel


class FactChecker(BertPreTrainedModel):
    """BERT with a fact-checking head (section 5): no pooler, one log-odds of SUPPORTS.

    ``from_pretrained`` also reads any other BERT directory, and then initialises the head at random.
    """

    config: BertConfig

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        # Not "classifier": BERTs for other tasks use that name, and their heads must not be loaded here.
        self.fact_head = nn.Linear(config.hidden_size, 1)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, **inputs: Any) -> Any:
        """Return the (B, 1) log-odds of SUPPORTS for ``input_ids`` and ``attention_mask`` of (B, T)."""
        return self.fact_head(self.bert(**inputs).last_hidden_state[:, 0])
