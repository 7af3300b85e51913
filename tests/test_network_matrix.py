"""The table of docs/own-model.md: it has a row for every kind of network, and rows computed anew say the same."""

from __future__ import annotations

from types import ModuleType

import pytest

from tests.easy import REPOSITORY, load_script

MODULE = "network_matrix"


@pytest.fixture(scope="module")
def matrix() -> ModuleType:
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(REPOSITORY / "tools"))  # the script imports the one beside it
        return load_script("tools", MODULE)


def rows_of_page(matrix: ModuleType) -> dict[str, list[str]]:
    """The cells of the page's table by the name of their row."""
    table = matrix.PAGE.read_text(encoding="utf-8").partition(matrix.BEGIN)[2].partition(matrix.END)[0]
    cells = [[cell.strip() for cell in line.split(" | ")] for line in table.splitlines()[2:]]
    return {name.removeprefix("| "): rest for name, *rest in cells}


def test_the_page_has_every_kind_and_nothing_is_wrong_in_silence(matrix: ModuleType) -> None:
    rows = rows_of_page(matrix)
    assert list(rows) == list(matrix.KINDS)
    assert len(rows) >= 30
    for cells in rows.values():
        results, reason = cells[: len(matrix.COLUMNS)], cells[-1].removesuffix("|").strip()
        assert set(results) <= {"ok", "refused"}
        assert ("refused" in results) == bool(reason)


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("convolution, `view`", ("Reptile", "MAML", "evaluate", "classifier")),
        ("ResNet, torchvision's style", ("Reptile", "evaluate")),
        ("LSTM, two ways, dropout", ("Reptile", "MAML", "evaluate")),
        ("ViT, timm's style", ("Reptile", "MAML")),
        ("LayerDrop by Python's `random`", ("Reptile", "MAML")),
        ("tied weights", ("Reptile", "MAML")),
        ("frozen body", ("Reptile", "MAML", "classifier")),
        ("in-place operations", ("MAML", "evaluate")),
        ("lazy layers", ("Reptile", "classifier", "save, load")),
        ("complex parameters", ("Reptile", "MAML", "classifier", "save, load")),
        ("buffer changed in `forward`", ("Reptile", "MAML", "evaluate", "save, load")),
        ("InstanceNorm, running averages", ("evaluate", "save, load")),
        ("own normalisation by the batch", ("evaluate", "classifier")),
        ("DenseNet, `checkpoint`", ("Reptile",)),
        ("state in an attribute", ("Reptile",)),
    ],
)
def test_a_row_computed_anew(matrix: ModuleType, kind: str, columns: tuple[str, ...]) -> None:
    page = dict(zip(matrix.COLUMNS, rows_of_page(matrix)[kind], strict=False))
    row = matrix.row(kind, columns)
    assert {column: row.cells[column] for column in columns} == {column: page[column] for column in columns}


def test_a_wrong_number_is_not_ok(matrix: ModuleType) -> None:
    torch = matrix.torch
    assert matrix.compared({"w": torch.ones(2)}, {"w": torch.ones(2)}) == "ok"
    assert matrix.compared({"w": torch.ones(2)}, {"w": 1.01 * torch.ones(2)}).startswith("differs by 9.9e-03")
    assert matrix.compared({"w": torch.zeros(2)}, {"w": torch.zeros(2)}) == "plain torch gives 0.0"
