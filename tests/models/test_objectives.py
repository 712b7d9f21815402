"""What T5 and BART hide of a line, and what their decoders are to say."""

import random
from itertools import pairwise
from typing import Any

import pytest
import torch
from tiny_models import TWO_STACKS, edit_tuples, tiny_model

from malmen.config.base import Architecture
from malmen.models.objectives import (
    SpanCorruption,
    TextInfilling,
    draw_spans,
    random_parts,
    replace_spans,
    sequence_to_sequence_loss,
)

SENTINELS = [91, 92, 93, 94]
MASK = 99
LINE = [0, *range(10, 50), 1]
UNUSED: Any = None


def test_spans_hold_the_share_asked_for_and_do_not_touch() -> None:
    rng = random.Random(0)
    for length in range(1, 60):
        for share in (0.15, 0.3, 1.0):
            spans = draw_spans(length, share, rng)
            assert sum(end - start for start, end in spans) == max(1, round(share * length))
            assert all(0 <= start < end <= length for start, end in spans)
            assert all(end < start for (_, end), (start, _) in pairwise(spans))


def test_every_position_can_be_hidden() -> None:
    rng = random.Random(0)
    seen = {i for _ in range(300) for start, end in draw_spans(20, 0.15, rng) for i in range(start, end)}
    assert seen == set(range(20))


def test_parts_are_positive_and_add_up() -> None:
    rng = random.Random(0)
    drawn = {tuple(random_parts(5, 3, rng)) for _ in range(200)}
    assert drawn == {(a, b, 5 - a - b) for a in range(1, 4) for b in range(1, 5 - a)}


def test_a_t5s_decoder_says_what_each_sentinel_hides() -> None:
    objective = SpanCorruption(UNUSED, 0, SENTINELS, random.Random(0))
    numbers = set()
    for _ in range(50):
        seen, said = objective.corrupt(LINE[1:])
        assert seen[-1] == said[-1] == 1
        hidden: dict[int, list[int]] = {}
        for token in said[:-1]:
            if token in SENTINELS:
                hidden[token] = []
            else:
                hidden[list(hidden)[-1]].append(token)
        restored = [part for token in seen for part in hidden.get(token, [token])]
        assert restored == LINE[1:]
        assert list(hidden) == SENTINELS[: len(hidden)] and all(hidden.values())
        assert sum(map(len, hidden.values())) == 6  # 15 % of 40
        numbers.add(len(hidden))
    assert numbers == {2}


def test_a_line_with_more_spans_than_sentinels_keeps_the_rest() -> None:
    seen, said = SpanCorruption(UNUSED, 0, SENTINELS[:1], random.Random(0)).corrupt(LINE)
    assert [token for token in said if token in SENTINELS] == SENTINELS[:1]
    assert len(seen) + len(said) == len(LINE) + 3  # Two sentinels and two ends for one end.


def test_a_barts_encoder_sees_one_mask_for_each_span() -> None:
    objective = TextInfilling(UNUSED, 1, MASK, random.Random(0))
    for _ in range(50):
        seen = objective.corrupt(LINE)
        kept = [token for token in seen if token != MASK]
        assert (seen[0], seen[-1]) == (LINE[0], LINE[-1])
        assert kept == [token for token in LINE if token in kept]
        assert len(kept) == len(LINE) - 12  # 30 % of 40
        assert seen.count(MASK) == 4


def test_what_is_hidden_depends_on_the_seed_alone() -> None:
    first, again, other = (TextInfilling(UNUSED, 1, MASK, random.Random(seed)).corrupt(LINE) for seed in (0, 0, 1))
    assert first == again != other


def test_spans_are_replaced_by_a_token_each() -> None:
    assert replace_spans([1, 2, 3, 4, 5, 6], [(0, 2), (3, 4)], [7, 8]) == [7, 3, 8, 5, 6]
    assert replace_spans([1, 2], [], []) == [1, 2]


@pytest.mark.parametrize("architecture", TWO_STACKS)
def test_padding_changes_no_loss(architecture: Architecture) -> None:
    model = tiny_model(architecture)
    prompts = [item.edit.prompt for item in edit_tuples(architecture, 6)]
    lines = model.tokenizer(prompts)["input_ids"]
    assert len(set(map(len, lines))) > 1
    together = sequence_to_sequence_loss(model.module, lines, lines, model.tokenizer.pad_token_id)
    alone = [sequence_to_sequence_loss(model.module, [line], [line], 0) * len(line) for line in lines]
    torch.testing.assert_close(together, torch.stack(alone).sum() / sum(map(len, lines)))
