"""Whole words are masked or not at all, at the rate and in the ways of BERT."""

from __future__ import annotations

import torch

from seqkd.models.recformer.masking import IGNORED, mask_words, number_words

MASK, VOCABULARY = 99, 100


def test_words_are_numbered_within_a_row():
    word_ids = torch.tensor([[-1, 0, 0, 1, 0, 0, 0, -1], [-1, 0, 1, 1, 2, -1, -1, -1]])
    items = torch.tensor([[0, 1, 1, 1, 2, 3, 3, 4], [0, 1, 1, 1, 1, 4, 4, 4]])
    expected = [[-1, 0, 0, 1, 2, 3, 3, -1], [-1, 0, 1, 1, 2, -1, -1, -1]]
    assert number_words(word_ids, items).tolist() == expected


def test_a_word_is_masked_as_a_whole_and_nothing_outside_words():
    torch.manual_seed(0)
    words = torch.tensor([[-1, 0, 0, 0, 1, 2, 2, -1]]).repeat(500, 1)
    tokens = torch.arange(10, 18).repeat(500, 1)
    masked, labels = mask_words(tokens, words, mask_token_id=MASK, vocab_size=VOCABULARY)
    asked = labels != IGNORED
    assert not asked[words == -1].any() and torch.equal(masked[~asked], tokens[~asked])
    assert torch.equal(labels[asked], tokens[asked])
    assert (asked[:, 1] == asked[:, 2]).all() and (asked[:, 2] == asked[:, 3]).all()
    assert (asked[:, 5] == asked[:, 6]).all() and (asked[:, 4] != asked[:, 5]).any()
    assert asked.any(dim=1).all()  # every row asks for something
    assert torch.equal(tokens[0], torch.arange(10, 18))  # the batch itself is left as it is


def test_rates_are_those_of_bert():
    torch.manual_seed(0)
    rows, length = 400, 100
    words = torch.arange(length).repeat(rows, 1) // 2
    tokens = torch.full((rows, length), 7)
    masked, labels = mask_words(tokens, words, mask_token_id=MASK, vocab_size=VOCABULARY)
    asked = labels != IGNORED
    assert abs(asked.float().mean().item() - 0.15) < 0.01
    assert abs((masked[asked] == MASK).float().mean().item() - 0.801) < 0.02  # 1 of 100 random tokens is the mask
    assert abs((masked[asked] == 7).float().mean().item() - 0.101) < 0.02
    assert len(masked[asked].unique()) > 90  # and the rest is random


def test_a_row_without_words_is_left_alone():
    tokens = torch.tensor([[0, 1, 1], [0, 5, 6]])
    words = torch.tensor([[-1, -1, -1], [-1, 0, 1]])
    masked, labels = mask_words(tokens, words, mask_token_id=MASK, vocab_size=VOCABULARY, probability=1.0)
    assert (labels[0] == IGNORED).all() and torch.equal(masked[0], tokens[0])
    assert labels[1].tolist() == [IGNORED, 5, 6]
