"""ImageStore against plain tensor code: selecting, turning, saving, and the refusals."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from torchreptile.core.errors import DataError
from torchreptile.core.files import remove_abandoned
from torchreptile.data.image_store import ImageStore
from torchreptile.data.samplers import EpisodeSampler


def make_store(sizes: tuple[int, ...] = (3, 1, 2), shape: tuple[int, int, int] = (2, 5, 5)) -> ImageStore:
    """Random images; classes of different sizes, so an index that ignores sizes shows."""
    generator = torch.Generator().manual_seed(0)
    return ImageStore(
        images=torch.randint(256, (sum(sizes), *shape), dtype=torch.uint8, generator=generator),
        class_sizes=torch.tensor(sizes),
        class_names=tuple("abcdefgh"[: len(sizes)]),
        name="random",
    )


def test_basic_properties() -> None:
    store = make_store()
    assert len(store) == 3
    assert store.image_shape == (2, 5, 5)
    assert store.class_starts.tolist() == [0, 3, 4]


@pytest.mark.parametrize("as_tensor", [False, True])
def test_select_takes_whole_classes_in_the_order_asked_for(as_tensor: bool) -> None:
    store = make_store()
    chosen = store.select(torch.tensor([2, 0]) if as_tensor else [2, 0])
    assert chosen.class_names == ("c", "a")
    assert chosen.class_sizes.tolist() == [2, 3]
    assert torch.equal(chosen.images, torch.cat([store.images[4:6], store.images[0:3]]))


def test_rotations_are_rot90_of_every_image_and_classes_of_their_own() -> None:
    store = make_store()
    turned = store.with_rotations()
    assert turned.class_names[:4] == ("a/rot000", "b/rot000", "c/rot000", "a/rot090")
    assert len(set(turned.class_names)) == 12
    assert turned.class_sizes.tolist() == [3, 1, 2] * 4
    for quarter in range(4):
        expected = torch.stack([torch.rot90(image, quarter, (1, 2)) for image in store.images])
        assert torch.equal(turned.images[6 * quarter : 6 * (quarter + 1)], expected)


@pytest.mark.parametrize("shape", [(1, 4, 6), (6, 9), (5, 1, 7)])
def test_any_shape_is_kept_whole(shape: tuple[int, ...], tmp_path: Path) -> None:
    """Pixels of a store, of its file and of the episodes drawn from it are those that it was made from."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, *shape), dtype=np.uint8)
    store = ImageStore.from_arrays({"a": pixels[0], "b": pixels[1]}, series=len(shape) == 2)
    assert store.image_shape == shape
    assert np.array_equal(store.images.numpy(), pixels.reshape(6, *shape))
    store.save(tmp_path / "store.safetensors")
    assert torch.equal(ImageStore.load(tmp_path / "store.safetensors").images, store.images)
    drawn = EpisodeSampler(store, way=2, shots=2, queries=1).sample(3, torch.Generator().manual_seed(0))
    assert (drawn.support_x.shape, drawn.query_x.shape) == ((3, 4, *shape), (3, 2, *shape))
    seen = {image.mul(255).round().byte().numpy().tobytes() for image in drawn.support_x.flatten(0, 1)}
    assert seen <= {image.tobytes() for image in pixels.reshape(6, *shape)}
    with pytest.raises(DataError, match="only square images can be rotated"):
        store.with_rotations()


def test_arrays_of_three_axes_are_grey_images_unless_they_are_called_series() -> None:
    arrays = {"a": np.zeros((3, 6, 9), np.uint8), "b": np.ones((2, 6, 9), np.uint8)}
    assert ImageStore.from_arrays(arrays).image_shape == (1, 6, 9)
    assert ImageStore.from_arrays(arrays, series=True).image_shape == (6, 9)
    assert ImageStore.from_arrays({"a": np.zeros((3, 9), np.uint8)}, series=True).image_shape == (1, 9)
    with pytest.raises(DataError, match=r"class a has series of shape \(3, 1, 6, 9\) .*; they must be \(n, C, L\)"):
        ImageStore.from_arrays({"a": np.zeros((3, 1, 6, 9), np.uint8)}, series=True)


def test_save_and_load_give_the_same_store_and_no_other_file(tmp_path: Path) -> None:
    store = make_store()
    path = tmp_path / "new" / "store.safetensors"
    store.save(path)
    loaded = ImageStore.load(path)
    assert torch.equal(loaded.images, store.images)
    assert torch.equal(loaded.class_sizes, store.class_sizes)
    assert (loaded.class_names, loaded.name) == (store.class_names, store.name)
    assert loaded.fingerprint == store.fingerprint
    assert list(path.parent.iterdir()) == [path]


def test_a_save_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "store.safetensors"
    old = make_store()
    old.save(path)

    def disk_full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("torchreptile.data.image_store._write", disk_full)
    with pytest.raises(OSError, match="no space left"):
        make_store(sizes=(1, 1)).save(path)
    assert ImageStore.load(path).fingerprint == old.fingerprint
    assert list(tmp_path.iterdir()) == [path]


def test_a_store_that_is_being_saved_is_not_taken_for_an_abandoned_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process looks for abandoned files while this one flushes the complete file to disk."""
    flush = os.fsync

    def while_another_process_cleans_up(file: int) -> None:
        remove_abandoned(tmp_path)
        flush(file)

    monkeypatch.setattr("torchreptile.core.files.os.fsync", while_another_process_cleans_up)
    path, store = tmp_path / "store.safetensors", make_store()
    store.save(path)
    assert ImageStore.load(path).fingerprint == store.fingerprint
    assert list(tmp_path.iterdir()) == [path]


def test_fingerprint_follows_pixels_names_and_sizes_but_not_memory_layout() -> None:
    store = make_store()
    pixels = store.images.clone()
    pixels[0, 0, 0, 0] ^= 1
    same = replace(store, images=store.images.to(memory_format=torch.channels_last))
    assert same.fingerprint == store.fingerprint
    others = [
        replace(store, images=pixels),
        replace(store, class_names=("a", "b", "x")),
        replace(store, class_sizes=torch.tensor([1, 3, 2])),
        replace(store, images=store.images.reshape(6, 2, 25, 1)),
    ]
    assert len({store.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_images_that_are_no_uint8_batch_are_refused() -> None:
    store = make_store()
    with pytest.raises(DataError, match=r"random: images must be .* not \(6, 2, 5, 5\) torch.float32"):
        replace(store, images=store.images.float())
    with pytest.raises(DataError, match=r"not \(2, 5, 5\) torch.uint8"):
        replace(store, images=store.images[0])


def test_classes_that_do_not_add_up_are_refused() -> None:
    store = make_store()
    with pytest.raises(DataError, match="3 class sizes adding up to 7, but 6 images"):
        replace(store, class_sizes=torch.tensor([3, 2, 2]))
    with pytest.raises(DataError, match="2 class names, 3 class sizes"):
        replace(store, class_names=("a", "b"))


@pytest.mark.parametrize("keep", [0, 5, -10], ids=["empty", "head cut", "pixels cut"])
def test_a_damaged_file_is_refused_by_name(keep: int, tmp_path: Path) -> None:
    path = tmp_path / "store.safetensors"
    make_store().save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"store\.safetensors: unreadable image store .*; delete it"):
        ImageStore.load(path)


def test_a_missing_or_foreign_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.safetensors: unreadable"):
        ImageStore.load(tmp_path / "absent.safetensors")
    save_file({"images": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(DataError, match=r"foreign\.safetensors: not an image store of this version"):
        ImageStore.load(tmp_path / "foreign.safetensors")
