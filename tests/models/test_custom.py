"""Custom networks by name: what a file must hold, what a network must do, and what is reported otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.easy import TINY, small_config
from torchreptile.algorithms.build import build_algorithm
from torchreptile.core.errors import ConfigError
from torchreptile.models.custom import check_network, load_network

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, image_shape, outputs):
        super().__init__()
        channels, height, width = image_shape
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, outputs))

    def forward(self, x):
        return self.layers(x)

NUMBER = 3
"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    file = tmp_path / "net.py"
    file.write_text(NET)
    return file


def test_a_named_network_is_loaded_and_fits(net: Path) -> None:
    network = load_network(f"{net}:Net")
    check_network(network, (3, 8, 8), 5)
    module = network((3, 8, 8), 5)
    assert module(torch.zeros(4, 3, 8, 8)).shape == (4, 5)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("net", "model is net; it must be a Python file and a name in it, such as net.py:Net"),
        ("{net}", "such as net.py:Net"),
        ("{net}:", "such as net.py:Net"),
        ("{net}:Net()", "such as net.py:Net"),
        ("{folder}/none.py:Net", "there is no file"),
        ("{net}:Nut", "has no callable Nut; its callables are Net"),
        ("{net}:NUMBER", "has no callable NUMBER; its callables are Net"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(net: Path, named: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        load_network(named.format(net=net, folder=net.parent))


def test_a_file_that_fails_is_named_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import no_such_module_here")
    with pytest.raises(ConfigError, match=r"bad\.py fails \(ModuleNotFoundError: No module named"):
        load_network(f"{tmp_path / 'bad.py'}:Net")
    (tmp_path / "worse.py").write_text("class Net(:")
    with pytest.raises(ConfigError, match=r"worse\.py fails \(SyntaxError"):
        load_network(f"{tmp_path / 'worse.py'}:Net")


def test_a_file_may_hold_dataclasses_and_share_its_name_with_another(tmp_path: Path) -> None:
    content = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom torch import nn\n\n"
        "@dataclass\nclass Size:\n    width: int = {width}\n\n"
        "def net(image_shape, outputs):\n    return nn.Linear(Size().width, outputs)\n"
    )
    modules = []
    for width in (3, 4):
        folder = tmp_path / str(width)
        folder.mkdir()
        (folder / "net.py").write_text(content.format(width=width))
        modules.append(load_network(f"{folder / 'net.py'}:net")((1, 7, 7), 2))
    assert [module.in_features for module in modules] == [3, 4]


class TakesNoShape(nn.Module):
    def __init__(self) -> None:
        super().__init__()


class HeadTooLarge(nn.Module):
    def __init__(self, image_shape: tuple[int, int, int], outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(image_shape[-1], outputs + 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(x.mean((1, 2)))
        return out


class NothingToLearn(HeadTooLarge):
    def __init__(self, image_shape: tuple[int, int, int], outputs: int) -> None:
        super().__init__(image_shape, outputs)
        del self.head


class FailsOnImages(HeadTooLarge):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(x.flatten(1))
        return out


class GivesTwo(HeadTooLarge):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = super().forward(x)
        return out, out  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (TakesNoShape, r"TakesNoShape\(\(1, 7, 7\), 3\) fails \(TypeError: .* it is called with the image shape"),
        (lambda image_shape, outputs: "net", "returns a str; it must return a torch.nn.Module"),
        (NothingToLearn, "has no parameters"),
        (FailsOnImages, r"FailsOnImages fails on images \(2, 1, 7, 7\) \(RuntimeError"),
        (HeadTooLarge, r"images \(2, 1, 7, 7\) give \(2, 4\); they must give \(2, 3\), 3 numbers per image"),
        (GivesTwo, r"give tuple; they must give \(2, 3\)"),
    ],
)
def test_a_network_that_cannot_work_is_refused_before_training(network: type[nn.Module], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_algorithm(small_config(execution="auto"), TINY, torch.device("cpu"), network=network)


def test_trying_a_network_takes_no_random_numbers(net: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    check_network(load_network(f"{net}:Net"), (1, 7, 7), 3)
    assert torch.equal(torch.rand(3), expected)
