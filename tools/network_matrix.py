"""Regenerate the table of docs/own-model.md: every kind of network, held against plain torch.

    python tools/network_matrix.py            # writes the table
    python tools/network_matrix.py --check    # exit code 1 if the table is not what it would write, or a cell is wrong

A cell is ok where the numbers are those of a plain loop over ``copy.deepcopy(module)`` and ``torch.optim``: the
meta-gradient of Reptile and of MAML, the labels of the queries, the probabilities of a classifier. What is saved and
loaded, and what is exported, must give the classifier's probabilities. The plain loop takes the same mini-batches and,
for networks that draw random numbers, starts from the same seed.
"""

from __future__ import annotations

import argparse
import copy
import random
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from network_kinds import KINDS, Shape
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from torchreptile.algorithms.base import Algorithm
from torchreptile.algorithms.build import build_algorithm
from torchreptile.algorithms.meta_state import MetaState
from torchreptile.core.config import Config
from torchreptile.core.config.presets import for_algorithm
from torchreptile.core.errors import TorchReptileError
from torchreptile.data.episodes import Episodes
from torchreptile.data.minibatches import minibatches
from torchreptile.inference.classifier import FewShotClassifier

PAGE = Path(__file__).parents[1] / "docs" / "own-model.md"
BEGIN, END = "<!-- from `python tools/network_matrix.py` -->\n", "<!-- end -->\n"
SHAPE, WAY, SHOTS, QUERIES, TASKS = (3, 12, 12), 3, 3, 2, 2
STEPS, BATCH, LR = 3, 4, 0.05
TOLERANCE = 2e-3  # relative to the largest number, in float32
COLUMNS = ("Reptile", "MAML", "evaluate", "classifier", "save, load", "export")

Network = Callable[[Shape, int], nn.Module]


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: of the kind of network.
        cells: by column, "ok", "refused", or what is wrong.
        note: why it is refused; empty if it is not.
    """

    name: str
    cells: dict[str, str]
    note: str

    @property
    def wrong(self) -> bool:
        """Whether a cell is neither ok nor refused."""
        return any(cell not in ("ok", "refused") for cell in self.cells.values())

    def markdown(self) -> str:
        """Return the row as a line of the table."""
        return "| " + " | ".join([self.name, *(self.cells[column] for column in COLUMNS), self.note]) + " |"


class Plain:
    """A network in plain torch, as its user would adapt it: a deep copy per task, and torch.optim."""

    def __init__(self, network: Network, phi: dict[str, Tensor]) -> None:
        """Build the module and give it the weights ``phi``, complex ones as pairs of real numbers."""
        seed_all(0)
        self.module = network(SHAPE, WAY).train()
        if any(nn.parameter.is_lazy(p) for p in self.module.parameters()):
            self.module(torch.zeros(2, *SHAPE))
        for part in self.module.modules():
            if isinstance(part, (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)):
                part.track_running_stats, part.running_mean, part.running_var = False, None, None
                part.num_batches_tracked = None
        for name, p in self.module.named_parameters():
            p.data = torch.view_as_complex(phi[name].clone()) if p.is_complex() else phi[name].clone()
        self.buffers = {name: buffer.clone() for name, buffer in self.module.named_buffers()}

    def fresh(self) -> nn.Module:
        """Return a copy that can be trained."""
        return copy.deepcopy(self.module)

    def forward(self, module: nn.Module, x: Tensor) -> Tensor:
        """Call a copy with its buffers as at the start, on a separate batch."""
        for name, buffer in module.named_buffers():
            buffer.data = self.buffers[name].clone()
        out: Tensor = module(x.clone())
        return out

    def train(self, module: nn.Module, optimiser: torch.optim.Optimizer, x: Tensor, y: Tensor, drawn: Tensor) -> None:
        """Take one step per mini-batch ``drawn`` (steps, B) of the images x and labels y."""
        for batch in drawn:
            optimiser.zero_grad()
            F.cross_entropy(self.forward(module, x[batch]), y[batch]).backward()
            optimiser.step()

    def query_alone(self, module: nn.Module, support: Tensor, query: Tensor) -> Tensor:
        """Return the logits of each query in a batch with the support set."""
        module.eval()
        with torch.no_grad():
            outputs = []
            for one in query:
                seed_all(0)
                outputs.append(self.forward(module, torch.cat([support, one[None]]))[-1])
        return torch.stack(outputs)


def as_real(p: Tensor) -> Tensor:
    """Return a tensor with complex numbers as pairs."""
    return torch.view_as_real(p.detach()) if p.is_complex() else p.detach()


def seed_all(seed: int) -> None:
    """Seed torch, Python and NumPy."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def settings(algorithm: str) -> Config:
    """Return small settings with SGD in the inner loop, whose steps do not magnify rounding."""
    config = for_algorithm(algorithm, Config()).replace(
        way=WAY, shots=SHOTS, train_shots=SHOTS, inner_batch=BATCH, inner_steps=STEPS, meta_batch=TASKS,
        inner_optimizer="sgd", inner_lr=LR, eval_steps=STEPS, eval_batch=BATCH, queries=QUERIES, device="cpu",
    )  # fmt: skip
    return config.replace(train_queries=QUERIES) if config.row.learns_from_queries else config


def episodes() -> Episodes:
    """Return two tasks of random images, each class with its own shade."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(WAY)
    shades = torch.rand(TASKS, WAY, 3, 1, 1, generator=generator)

    def part(images: int) -> tuple[Tensor, Tensor]:
        y = labels.repeat_interleave(images).expand(TASKS, -1)
        noise = torch.rand(TASKS, WAY * images, *SHAPE, generator=generator)
        return 0.5 * shades.repeat_interleave(images, 1) + 0.5 * noise, y

    support, query = part(SHOTS), part(QUERIES)
    return Episodes(*support, *query, labels.expand(TASKS, -1))


def built(network: Network, algorithm: str) -> tuple[Algorithm, MetaState]:
    """Return the package's algorithm and its state before training; one task after another if it draws numbers."""
    made = build_algorithm(settings(algorithm), SHAPE, torch.device("cpu"), network=network)
    if made.execution.draws:
        config = settings(algorithm).replace(execution="loop")
        made = build_algorithm(config, SHAPE, torch.device("cpu"), network=network)
    return made, made.begin(0)


def start_draws(algorithm: Algorithm, generator: torch.Generator) -> None:
    """Seed the global generators as the package does for networks that draw."""
    if algorithm.execution.draws:
        seed_all(int(torch.randint(2**62, (), generator=generator)))


def meta_gradient(algorithm: Algorithm, state: MetaState, tasks: Episodes) -> tuple[dict[str, Tensor], Tensor]:
    """Return the package's meta-gradient, and the mini-batches it drew; the global generators are seeded as it did."""
    ours = algorithm.meta_gradient(state, tasks, torch.Generator().manual_seed(1)).gradient
    generator = torch.Generator().manual_seed(1)
    drawn = minibatches(TASKS, WAY * SHOTS, BATCH, STEPS, False, generator)
    start_draws(algorithm, generator)
    return ours, drawn


def reptile(network: Network) -> str:
    """Compare the meta-gradient of Reptile."""
    algorithm, state = built(network, "reptile")
    tasks, plain = episodes(), Plain(network, state.params)
    ours, drawn = meta_gradient(algorithm, state, tasks)
    changes = {name: torch.zeros_like(p) for name, p in state.params.items()}
    for task in range(TASKS):
        module = plain.fresh()
        optimiser = torch.optim.SGD(module.parameters(), LR)
        plain.train(module, optimiser, tasks.support_x[task], tasks.support_y[task], drawn[task])
        for name, p in module.named_parameters():
            changes[name] += (state.params[name] - as_real(p)) / TASKS
    return compared(ours, changes, moving=plain.module)


def maml(network: Network) -> str:
    """Compare the meta-gradient of MAML, by autograd through the inner steps."""
    algorithm, state = built(network, "maml")
    tasks, plain = episodes(), Plain(network, state.params)
    ours, drawn = meta_gradient(algorithm, state, tasks)
    phi = dict(plain.module.named_parameters())
    trained = {name: p for name, p in phi.items() if p.requires_grad}
    total = 0.0
    with sdpa_kernel(SDPBackend.MATH), torch.backends.mkldnn.flags(enabled=False):
        losses = []
        for task in range(TASKS):
            weights = dict(trained)

            def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
                fresh = {name: buffer.clone() for name, buffer in plain.buffers.items()}
                return F.cross_entropy(functional_call(plain.module, {**phi, **weights, **fresh}, (x.clone(),)), y)

            for batch in drawn[task]:
                value = loss(weights, tasks.support_x[task][batch], tasks.support_y[task][batch])
                gradient = torch.autograd.grad(
                    value, list(weights.values()), create_graph=True, materialize_grads=True
                )  # fmt: skip
                weights = {name: p - LR * g for (name, p), g in zip(weights.items(), gradient, strict=True)}
            losses.append(loss(weights, tasks.query_x[task], tasks.query_y[task]) / TASKS)
        total = torch.stack(losses).sum()
    expected = torch.autograd.grad(total, list(trained.values()), materialize_grads=True)
    by_name = {name: as_real(g) for name, g in zip(trained, expected, strict=True)}
    zeros = {name: torch.zeros_like(p) for name, p in state.params.items()}
    return compared(ours, zeros | by_name, moving=plain.module)


def evaluate(network: Network) -> str:
    """Compare the labels that an evaluation gives the queries, each alone, before and after others were measured."""
    algorithm, state = built(network, "reptile")
    tasks, plain = episodes(), Plain(network, state.params)
    predicted = [algorithm.predict(state, tasks, torch.Generator().manual_seed(1)) for _ in range(2)]
    if not torch.equal(predicted[0].inductive, predicted[1].inductive):
        return "differs the second time"
    generator = torch.Generator().manual_seed(1)
    drawn = minibatches(TASKS, WAY * SHOTS, BATCH, STEPS, False, generator)
    start_draws(algorithm, generator)
    modules = []
    for task in range(TASKS):
        module = plain.fresh()
        optimiser = torch.optim.SGD(module.parameters(), LR)
        plain.train(module, optimiser, tasks.support_x[task], tasks.support_y[task], drawn[task])
        modules.append(module)
    for task, module in enumerate(modules):
        logits = plain.query_alone(module, tasks.support_x[task], tasks.query_x[task])
        largest = logits.topk(2).values
        clear = largest[:, 0] - largest[:, 1] > 1e-4  # a tie may fall either way
        if algorithm.execution.draws_predicting:
            continue  # its masks depend on the shape of the batch; that they repeat was seen above
        if not torch.equal(logits.argmax(1)[clear], predicted[0].inductive[task][clear]):
            return "other labels"
    return "ok"


def pictures() -> tuple[np.ndarray, list[str], np.ndarray]:
    """Return support images (N, C, H, W) uint8 with their labels, and queries."""
    rng = np.random.default_rng(0)
    shades = rng.integers(0, 128, (WAY, 3, 1, 1))
    images = [rng.integers(0, 128, (WAY, *SHAPE)) + shades for _ in range(4)]
    labels = [chr(ord("a") + number) for number in range(WAY)] * 2
    return np.concatenate(images[:2]).astype(np.uint8), labels, np.concatenate(images[2:]).astype(np.uint8)


def fitted(network: Network) -> FewShotClassifier:
    """Return a classifier that starts from the module's own weights."""
    seed_all(0)
    module = network(SHAPE, WAY)
    support, labels, _ = pictures()
    return FewShotClassifier(module, image_shape=SHAPE, steps=STEPS, batch=BATCH).fit(support, labels)


def classifier(network: Network) -> str:
    """Compare a classifier's probabilities."""
    ours = fitted(network)
    support, labels, queries = pictures()
    inner = ours.fitted_.algorithm
    plain = Plain(network, inner.initial_state(ours.fitted_.state.params).params)
    x, y = torch.from_numpy(support) / 255, torch.from_numpy(np.unique(labels, return_inverse=True)[1])
    generator = torch.Generator().manual_seed(0)
    drawn = inner.draw(1, len(x), generator)[0]
    if inner.execution.draws and not inner.execution.one_by_one:
        again = fitted(network).predict_proba(queries)
        return "ok" if np.array_equal(again, ours.predict_proba(queries)) else "differs the second time"
    start_draws(inner, generator)
    module = plain.fresh()
    settings = inner.config.inner
    optimiser = torch.optim.Adam(module.parameters(), settings.inner_lr, betas=(0.0, 0.999))
    plain.train(module, optimiser, x, y, drawn)
    expected = plain.query_alone(module, x, torch.from_numpy(queries) / 255).softmax(1)
    return compared({"": torch.from_numpy(ours.predict_proba(queries))}, {"": expected})


def save_and_load(network: Network) -> str:
    """Compare the probabilities of a classifier with those of its copy from a file."""
    ours = fitted(network)
    queries = pictures()[2]
    with tempfile.TemporaryDirectory() as folder:
        ours.save(Path(folder) / "c.safetensors")
        loaded = FewShotClassifier.load(Path(folder) / "c.safetensors", network=network)
    expected, found = ours.predict_proba(queries), loaded.predict_proba(queries)
    return compared({"": torch.from_numpy(found)}, {"": torch.from_numpy(expected)}, 1e-5)


def export(network: Network) -> str:
    """Compare the probabilities of a classifier with those of its exported program."""
    ours = fitted(network)
    queries = pictures()[2]
    with tempfile.TemporaryDirectory() as folder:
        info = ours.export(Path(folder) / "c.pt2")
        program = torch.export.load(Path(folder) / "c.pt2").module()
    x = torch.from_numpy(queries) / 255
    found = program(x) if info.any_number else torch.cat([program(image[None]) for image in x])
    return compared({"": found.detach()}, {"": torch.from_numpy(ours.predict_proba(queries))}, 1e-5)


def compared(
    found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = TOLERANCE, moving: nn.Module | None = None
) -> str:
    """Return "ok", or by how much numbers differ, relative to the largest; gradients that are all zero are wrong."""
    if found.keys() != expected.keys():
        return "other names"
    scale = max(float(p.abs().max()) for p in expected.values())
    if not 0 < scale < float("inf"):
        return f"plain torch gives {scale}"
    gap = max(float((found[name] - p).abs().max()) for name, p in expected.items()) / scale
    if moving is not None:
        frozen = [name for name, p in moving.named_parameters() if not p.requires_grad]
        if any(bool(found[name].count_nonzero()) for name in frozen):
            return "a frozen parameter moves"
    return "ok" if gap <= tolerance else f"differs by {gap:.1e}"


CHECKS: dict[str, Callable[[Network], str]] = dict(
    zip(COLUMNS, (reptile, maml, evaluate, classifier, save_and_load, export), strict=True)
)


def row(name: str, columns: tuple[str, ...] = COLUMNS) -> Row:
    """Try one kind of network in these columns."""
    cells, reasons = dict.fromkeys(COLUMNS, ""), []
    for column in columns:
        try:
            with quiet():
                cells[column] = CHECKS[column](KINDS[name])
        except TorchReptileError as refusal:
            message = " ".join(str(refusal).split())
            cells[column] = "refused" if "\n" not in str(refusal) else "refused on several lines"
            if message not in reasons:
                reasons.append(message)
        except Exception as error:
            cells[column] = f"traceback: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return Row(name, cells, "; ".join(reasons).replace("|", "\\|"))


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out warnings of torch, such as of scripting, and put the random state back."""
    state = torch.random.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            torch.random.set_rng_state(state)


def table(rows: list[Row]) -> str:
    """Return the table in Markdown."""
    head = ["network", *COLUMNS, "why it is refused"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *(one.markdown() for one in rows)]
    return "\n".join(lines) + "\n"


def replaced(page: str, new: str) -> str:
    """Return the page with its table replaced."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE} has no lines {BEGIN.strip()} and {END.strip()}")
    return before + begin + new + end + after


def main() -> int:
    """Write or check the table; the exit code is 1 if a cell is wrong, or the table is not the page's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the page, write nothing")
    parser.add_argument("--only", default="", help="rows whose name has this in it; prints them")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row(name) for name in KINDS if arguments.only in name]
    for one in rows:
        if one.wrong:
            print(f"wrong: {one.markdown()}", file=sys.stderr)
    if arguments.only:
        print(table(rows), end="")
        return int(any(one.wrong for one in rows))
    page = PAGE.read_text(encoding="utf-8")
    new = replaced(page, table(rows))
    if arguments.check:
        if new != page:
            print(f"{PAGE} is not what this script writes", file=sys.stderr)
        return int(new != page or any(one.wrong for one in rows))
    PAGE.write_text(new, encoding="utf-8")
    return int(any(one.wrong for one in rows))


if __name__ == "__main__":
    sys.exit(main())
