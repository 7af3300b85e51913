"""The real mini-ImageNet, as far as it is there: counts, pixels, known duplicates, and a few steps of training."""

from __future__ import annotations

import io
import lzma
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.easy import REPOSITORY
from torchreptile.core.config import TaskConfig
from torchreptile.core.config.presets import preset
from torchreptile.core.errors import DataError
from torchreptile.data.loading import load_splits
from torchreptile.training.evaluation.evaluate import evaluate
from torchreptile.training.train import train

DATA = Path(os.environ.get("TORCHREPTILE_DATA") or REPOSITORY.parent / "shared" / "data")
FOLDER = DATA / "mini-imagenet"

needs_pictures = pytest.mark.skipif(
    not all((FOLDER / f"images-{split}.tar.xz").is_file() for split in ("train", "val")),
    reason=f"no mini-ImageNet in {FOLDER}; set TORCHREPTILE_DATA to a folder with mini-imagenet/",
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for all tests here: to prepare the pictures takes half a minute."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def cached_together(no_network: None, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHREPTILE_CACHE", str(prepared))


@needs_pictures
def test_counts_pixels_and_the_split_that_is_not_there() -> None:
    splits = load_splits(TaskConfig(dataset="mini-imagenet", data_root=str(FOLDER)))
    for split, classes in (("train", 64), ("val", 16)):
        store = splits.get(split)  # type: ignore[arg-type]
        assert store.class_sizes.tolist() == [600] * classes
        assert store.images.shape == (600 * classes, 3, 84, 84)
    with lzma.open(FOLDER / "images-val.tar.xz") as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        member = tar.next()
        assert member is not None
        content = tar.extractfile(member)
        assert content is not None
        assert member.name.endswith(f"{store.class_names[0]}00000003.jpg")
        pixels = np.asarray(Image.open(io.BytesIO(content.read())))
    assert np.array_equal(store.images[0].permute(1, 2, 0).numpy(), pixels)
    if not list(FOLDER.glob("images-test*")) and not (FOLDER / "images").exists():
        with pytest.raises(DataError, match="has no test pictures"):
            splits.get("test")


@needs_pictures
def test_a_few_steps_of_the_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It trains on the training classes, watches validation classes, and is measured on them."""
    monkeypatch.setenv("TORCHREPTILE_DATA", str(DATA))
    config = preset("mini-imagenet-1shot-5way").replace(
        outer_steps=2, monitor_every=2, monitor_episodes=2, eval_steps=2, device="cpu"
    )
    run = train(config, tmp_path / "run")
    assert run.step == 2
    assert set(run.measured) == {"train", "val"}
    assert evaluate(tmp_path / "run", "val", episodes=4, device="cpu").result.transductive.mean > 0
