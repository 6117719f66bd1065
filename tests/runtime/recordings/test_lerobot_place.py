"""A dataset's directory appears whole; of what is there, only a dataset gives way to it."""

import pytest

from memorywam_runtime.errors import InputError
from memorywam_runtime.files import atomic_directory, refuse_occupied
from memorywam_runtime.recordings.lerobot_place import DATASET


def dataset(path, content="old"):
    (path / "meta").mkdir(parents=True)
    (path / "meta" / "info.json").write_text(content)
    return path


def check_place(out, *, overwrite):
    refuse_occupied(out, overwrite=overwrite, kind=DATASET)


def dataset_directory(out, *, overwrite):
    return atomic_directory(out, overwrite=overwrite, kind=DATASET)


def names(path):
    return sorted(one.name for one in path.iterdir())


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_new_one(tmp_path, is_there, overwrite):
    out = tmp_path / "set"
    if is_there:
        out.mkdir()
    with dataset_directory(out, overwrite=overwrite) as draft:
        assert draft.parent == tmp_path
        dataset(draft, "new")
        assert not (out / "meta").exists()
    assert (out / "meta" / "info.json").read_text() == "new"
    assert names(tmp_path) == ["set"]


def test_an_old_one_is_replaced_when_the_new_one_is_whole(tmp_path):
    out = dataset(tmp_path / "set")
    (out / "data").mkdir()
    with dataset_directory(out, overwrite=True) as draft:
        dataset(draft, "new")
        assert (out / "meta" / "info.json").read_text() == "old"
    assert (out / "meta" / "info.json").read_text() == "new"
    assert names(out) == ["meta"]
    assert names(tmp_path) == ["set"]


def test_through_a_link(tmp_path):
    real = dataset(tmp_path / "real")
    link = tmp_path / "link"
    link.symlink_to(real)
    with dataset_directory(link, overwrite=True) as draft:
        dataset(draft, "new")
    assert link.is_symlink()
    assert (real / "meta" / "info.json").read_text() == "new"


@pytest.mark.parametrize("is_there", [False, True])
def test_after_an_error_nothing_has_changed(tmp_path, is_there):
    out = tmp_path / "set"
    if is_there:
        dataset(out)
    with pytest.raises(RuntimeError, match="stop"), dataset_directory(out, overwrite=True) as draft:
        dataset(draft, "new")
        raise RuntimeError("stop")
    assert names(tmp_path) == (["set"] if is_there else [])
    assert not is_there or (out / "meta" / "info.json").read_text() == "old"


def test_what_came_meanwhile_is_kept(tmp_path):
    out = dataset(tmp_path / "set")
    with (
        pytest.raises(InputError, match=r"holds 'diary.txt'; expected a LeRobot dataset"),
        dataset_directory(out, overwrite=True) as draft,
    ):
        dataset(draft, "new")
        (out / "diary.txt").write_text("dear")
    assert names(out) == ["diary.txt", "meta"]
    assert names(tmp_path) == ["set"]


def test_refused(tmp_path):
    out = dataset(tmp_path / "set")
    with pytest.raises(InputError, match=r"not empty; expected .* with --overwrite"):
        check_place(out, overwrite=False)
    check_place(out, overwrite=True)
    for name in ("data/chunk-000/x.mcap", "meta/notes.txt", "videos/a.parquet"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).touch()
        with pytest.raises(InputError, match=f"holds '{name}'"):
            check_place(out, overwrite=True)
        (out / name).unlink()
    (out / "data/chunk-000/link.parquet").symlink_to(tmp_path)
    with pytest.raises(InputError, match=r"holds 'data/chunk-000/link.parquet'"):
        check_place(out, overwrite=True)
    (out / "data/chunk-000/link.parquet").unlink()
    check_place(out, overwrite=True)
    (out / "mine.txt").touch()
    with pytest.raises(InputError, match=r"holds 'mine.txt'"):
        check_place(out, overwrite=True)
    other = tmp_path / "other"
    (other / "data").mkdir(parents=True)
    with pytest.raises(InputError, match=r"holds no meta/info.json"):
        check_place(other, overwrite=True)
    with pytest.raises(InputError, match=r"is a file; expected"):
        check_place(out / "mine.txt", overwrite=True)
    with pytest.raises(InputError, match=r"is not a directory\. Create it"):
        check_place(tmp_path / "none" / "set", overwrite=True)
