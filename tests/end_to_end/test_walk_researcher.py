"""export/WALK.md, as a researcher follows it: a trained checkpoint to a bundle that is verified."""

import pytest
import torch
from tests.fakes.checkpoints import TINY, tensors_of
from tests.fakes.page_commands import ROOT, lines, lines_not_printed, run_commands
from tests.fakes.upstream import parts_of, vae_tensors, write_cache_entry, write_upstream_stats

from memorywam_export.checkpoints.checkpoint import model_shapes
from memorywam_export.checkpoints.weights import random_weights
from memorywam_runtime.bundle import read_manifest

PAGE = (ROOT / "export" / "WALK.md").read_text()
REFUSED = ("memorywam verify bundle --checkpoint trained/step_020000.pt",)


def write_files(folder):
    """Put into a folder what the page says that lies there."""
    trained = folder / "trained"
    trained.mkdir()
    right = tensors_of(TINY)
    shapes = model_shapes(TINY).items()
    other = {one.name: one.load() for one in random_weights(shapes, torch.float32, 1)}
    torch.save(parts_of("fastwam", right), trained / "step_010000.pt")
    torch.save(parts_of("fastwam", other), trained / "step_020000.pt")
    torch.save(vae_tensors(TINY, right), folder / "Wan2.2_VAE.pth")
    write_upstream_stats(trained, TINY)
    draw = torch.Generator().manual_seed(1)
    for text, count in (("stack the cups", 3), ("press the red button", 4)):
        rows = torch.randn(count, TINY.text_dim, generator=draw)
        write_cache_entry(folder / "text_cache", text, rows, TINY.conventions.text_len)


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """The folder in which the page's commands have run, and what each printed."""
    folder = tmp_path_factory.mktemp("researcher")
    write_files(folder)
    return folder, run_commands(PAGE, folder, refused=REFUSED)


def test_the_walk_ends_with_a_verified_bundle(walked):
    folder, printed = walked
    assert list(printed) == lines(PAGE, "sh")
    manifest = read_manifest(folder / "bundle")
    assert manifest.parity is not None
    assert manifest.parity.passed
    assert [prompt.text for prompt in manifest.prompts] == [
        "stack the cups",
        "press the red button",
    ]


def test_the_lines_that_the_page_shows_are_printed(walked):
    assert lines_not_printed(PAGE, walked[1]) == []


def test_the_files_that_the_page_names_are_there(walked):
    folder, _ = walked
    named = [line.split()[0] for line in PAGE.splitlines() if line.startswith("    ")]
    assert len(named) == 5
    assert all((folder / name).exists() for name in named)
