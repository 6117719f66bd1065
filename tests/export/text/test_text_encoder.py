"""Encoding an instruction with a real, tiny umT5 that transformers loads from disk."""

import numpy as np
import pytest
import torch
from tests.fakes.episodes import contract_with
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from memorywam_export.text.text_encoder import PROMPT_TEMPLATE, embedding_from_text, encoder_hash
from memorywam_runtime.errors import InputError

WORDS = [*PROMPT_TEMPLATE.replace(":", " :").split(), "press", "it"]


@pytest.fixture(scope="module")
def encoder_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("umt5")
    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    for word in WORDS:
        vocabulary.setdefault(word, len(vocabulary))
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(path)
    torch.manual_seed(0)
    config = UMT5Config(vocab_size=64, d_model=10, d_kv=4, d_ff=16, num_layers=2, num_heads=2)
    UMT5EncoderModel(config).save_pretrained(path)
    return path


def test_an_instruction_becomes_rows_of_the_models_width(encoder_dir):
    contract = contract_with("tiny", text_len=24)
    rows, made_by = embedding_from_text("press it", encoder_dir, contract)
    assert rows.shape[1] == contract.text_dim
    assert 1 < len(rows) <= 24
    assert np.isfinite(rows).all()
    assert made_by == f"umt5 {encoder_hash(encoder_dir)[:16]}"
    again, _ = embedding_from_text("press it", encoder_dir, contract)
    other, _ = embedding_from_text("press press", encoder_dir, contract)
    assert np.array_equal(rows, again)
    assert not np.array_equal(rows, other)


def test_long_prompts_are_cut_at_text_len(encoder_dir):
    rows, _ = embedding_from_text("press " * 50, encoder_dir, contract_with("tiny", text_len=5))
    assert len(rows) == 5


def test_another_width_is_refused(encoder_dir):
    with pytest.raises(InputError, match="gives rows of 10; contract 'demo' takes 32"):
        embedding_from_text("press it", encoder_dir, contract_with("demo"))


def test_a_folder_without_an_encoder_is_refused(tmp_path):
    with pytest.raises(InputError, match="no text encoder at"):
        embedding_from_text("press it", tmp_path, contract_with("tiny"))
