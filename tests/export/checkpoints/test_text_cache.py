"""FastWAM's text cache: the entry that upstream would read, its tokens and nothing else."""

import hashlib

import numpy as np
import pytest
import torch
from tests.fakes.bundles import TINY as CHECKPOINT
from tests.fakes.checkpoints import TINY
from tests.fakes.upstream import write_cache_entry

from memorywam_export.checkpoints.checkpoint import Companions, checkpoint_from_argument
from memorywam_export.checkpoints.text_cache import (
    cache_file_name,
    embedding_from_cache,
    embeddings_from_cache,
)
from memorywam_runtime.errors import InputError

ROWS = torch.randn(3, TINY.text_dim, generator=torch.Generator().manual_seed(0))
TEXT = "stack the cups"


@pytest.fixture
def cache(tmp_path):
    write_cache_entry(tmp_path / "cache", TEXT, ROWS.bfloat16(), 5)
    return tmp_path / "cache"


def test_the_name_is_the_hash_of_the_filled_template():
    prompt = (
        "A video recorded from a robot's point of view executing the following instruction: "
        "Käse {} 食べ物"
    )
    digest = hashlib.sha256(prompt.encode("utf-8")).hexdigest()
    assert cache_file_name("Käse {} 食べ物", 128) == f"{digest}.t5_len128.wan22ti2v5b.pt"
    # Computed apart, with sha256sum.
    assert cache_file_name("press the button", 128) == (
        "fce9173c2af7a0e26049dcda975c091c5a5a1214824bf54a70f81e6e96944828.t5_len128.wan22ti2v5b.pt"
    )


def test_the_tokens_are_taken_and_the_rest_left(cache):
    rows, encoder = embedding_from_cache(cache, TEXT, TINY)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, ROWS.bfloat16().float().numpy())
    assert encoder == f"text cache {cache_file_name(TEXT, 5)[:16]}"
    assert list(embeddings_from_cache(cache, [TEXT], TINY)) == [TEXT]


@pytest.mark.parametrize(
    "form",
    [
        lambda c, m: {"context": c[None], "mask": m[None]},
        lambda c, m: {"context": c.half(), "mask": m.long()},
        lambda c, m: {"context": c, "mask": m, "ids": torch.arange(5)},
        lambda c, m: {"context": c, "mask": torch.ones(5)},
    ],
    ids=["batch", "types", "ids", "full"],
)
def test_forms_in_which_entries_are_found(cache, form):
    path = cache / cache_file_name(TEXT, 5)
    content = torch.load(path, weights_only=True)
    torch.save(form(content["context"], content["mask"]), path)
    rows, _ = embedding_from_cache(cache, TEXT, TINY)
    is_full = bool(torch.load(path, weights_only=True)["mask"].all())
    assert rows.shape == (5 if is_full else 3, 10)
    np.testing.assert_allclose(rows[:3], ROWS.numpy(), rtol=2**-7)


def test_an_instruction_that_is_not_there_is_told_with_the_name_and_the_count(cache):
    write_cache_entry(cache, "other", ROWS, 7)
    with pytest.raises(
        InputError,
        match=r"'Stack the cups' is not in .*: found 2 entries \(1 of t5_len5.wan22ti2v5b.pt, 1 of "
        rf"t5_len7.*\); expected {cache_file_name('Stack the cups', 5)}, the SHA-256 of 'A video",
    ):
        embedding_from_cache(cache, "Stack the cups", TINY)
    with pytest.raises(InputError, match="found no such folder; expected"):
        embedding_from_cache(cache / "nowhere", TEXT, TINY)
    (cache / "empty").mkdir()
    with pytest.raises(InputError, match="found 0 entries; expected"):
        embedding_from_cache(cache / "empty", TEXT, TINY)


class Evil:
    def __reduce__(self):
        return (print, ("this ran",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"context": ROWS}, r"found \['context'\]; expected the tensors context and mask"),
        ({"context": ROWS, "mask": [1, 1, 1]}, "expected the tensors context and mask"),
        ({"context": ROWS, "mask": torch.ones(3), "lr": 1}, r"found \['context', 'lr', 'mask'\]"),
        ({"context": ROWS, "mask": torch.ones(4)}, r"a mask of \[4\] with 4 ones; expected rows"),
        ({"context": ROWS, "mask": torch.zeros(3)}, "with 0 ones"),
        ({"context": ROWS, "mask": torch.tensor([1, 0, 1])}, "ones for the tokens, then zeros"),
        ({"context": ROWS[0], "mask": torch.ones(10)}, r"a context of \[10\]"),
        ({"context": ROWS.long(), "mask": torch.ones(3)}, "torch.int64"),
        ({"context": ROWS, "mask": torch.ones(3)}, r"context of \[3, 10\]; contract 'tiny' takes"),
        ({"context": torch.ones(5, 9), "mask": torch.ones(5)}, r"takes \[5, 10\]"),
        ({"context": torch.full((5, 10), np.nan), "mask": torch.ones(5)}, "not finite"),
        ([1], "found list; expected a dictionary"),
        ({"context": Evil(), "mask": torch.ones(3)}, "would run code"),
    ],
)
def test_entries_that_do_not_fit_are_refused(cache, content, message, capsys):
    torch.save(content, cache / cache_file_name(TEXT, 5))
    with pytest.raises(InputError, match=message):
        embedding_from_cache(cache, TEXT, TINY)
    assert "this ran" not in capsys.readouterr().out


def test_a_checkpoint_takes_its_instructions_from_there(cache):
    beside = Companions(text_cache=cache, instructions=(TEXT,))
    checkpoint = checkpoint_from_argument(CHECKPOINT, companions=beside)
    assert list(checkpoint.prompts) == ["random", TEXT]
    for companions in (Companions(text_cache=cache), Companions(instructions=(TEXT,))):
        with pytest.raises(
            InputError,
            match=r"found --(instruction|text-cache) .*without --(instruction|text-cache)",
        ):
            checkpoint_from_argument(CHECKPOINT, companions=companions)
