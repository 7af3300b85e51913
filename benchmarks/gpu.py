"""All measurements that need a GPU, in one command and within eight minutes.

    python benchmarks/gpu.py [--out gpu-results] [--minutes 8]

1. Differences between replayed CUDA graphs and eager execution, for every execution and precision.
2. `reptile bench` on the GPU for the three published trainings.
3. Wall time of the published trainings: all of the Omniglot 5-way one if time allows, the others projected from a few
   hundred outer steps. Uses random images of the right shape; their content does not influence the time.
4. Wall time of 10,000 evaluation episodes, 5-way 1-shot, 50 inner steps, both modes.

Prints results as they come, and writes results.json into the folder after every part.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from torchreptile.algorithms.build import build_algorithm
from torchreptile.algorithms.meta_state import MetaState
from torchreptile.core.config import Config
from torchreptile.core.config.presets import preset
from torchreptile.core.device import precision_of
from torchreptile.core.environment import environment
from torchreptile.data.samplers import EpisodeSampler
from torchreptile.experiments.benchmark.bench import bench
from torchreptile.experiments.benchmark.workloads import NAIVE, Candidate, outer_steps, random_store
from torchreptile.models.blueprint import initial_params
from torchreptile.models.conv4.network import for_images
from torchreptile.training.evaluation.measure import measure
from torchreptile.training.outer_step import OuterStep

OMNIGLOT, MINI_IMAGENET = (1, 28, 28), (3, 84, 84)
EXECUTIONS = ("grouped", "matmul", "vmap", "compiled")
CHECKED_STEPS = 5
# Settings of the largest published trainings; for mini-ImageNet see Nichol et al. 2018, appendix A.
JOBS: dict[str, tuple[Config, tuple[int, int, int]]] = {
    "omniglot 5-way": (preset("omniglot-1shot-5way"), OMNIGLOT),
    "omniglot 20-way": (preset("omniglot-1shot-20way"), OMNIGLOT),
    "mini-imagenet 5-way": (Config().replace(inner_steps=8, train_shots=15, outer_steps=100_000), MINI_IMAGENET),
}


@dataclass(frozen=True)
class Settings:
    """Output folder and limits."""

    out: Path = Path("gpu-results")
    minutes: float = 8.0
    rounds: int = 20


class Report:
    """Results, written to a file after each one."""

    def __init__(self, folder: Path, minutes: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file, self._end = folder / "results.json", time.monotonic() + 60 * minutes
        self._content: dict[str, Any] = {"environment": environment()}

    def left(self) -> float:
        """Return the remaining time in seconds."""
        return self._end - time.monotonic()

    def add(self, name: str, content: Any) -> None:
        """Store and print a result."""
        self._content[name] = content
        self._file.write_text(json.dumps(self._content, indent=2))
        print(f"[{self.left():.0f} s left] {name}: {json.dumps(content)}", flush=True)


def moved_logits(candidate: Candidate, shape: tuple[int, int, int], device: torch.device) -> torch.Tensor:
    """Return the logits of fixed images after a few outer steps from a fixed start."""
    config = Config().replace(execution=candidate.execution, precision=candidate.precision)
    store = random_store(shape, device)
    algorithm = build_algorithm(config, shape, device)
    step = OuterStep(
        algorithm,
        algorithm.sampler(store),
        config.outer,
        torch.Generator(device).manual_seed(0),
        record=candidate.graph,
    )
    state: MetaState = algorithm.begin(seed=0)
    with precision_of(device, candidate.precision):
        for _ in range(CHECKED_STEPS):
            state, _ = step(state, 0.5)
    net = for_images(shape, config.task.way).to(device)
    images = store.images[:64].float() / 255
    return torch.func.functional_call(net, state.params, (images,)).double()


def check_graphs(report: Report, device: torch.device) -> None:
    """Report the largest difference of logits between replayed and eager outer steps, and between two eager runs."""
    for network, shape in (("omniglot", OMNIGLOT), ("mini-imagenet", MINI_IMAGENET)):
        found: dict[str, Any] = {}
        for execution in EXECUTIONS:
            for precision in ("fp32", "tf32", "bf16"):
                try:
                    eager, again = (moved_logits(Candidate(execution, precision), shape, device) for _ in "12")
                    graph = moved_logits(Candidate(execution, precision, graph=True), shape, device)
                except Exception as error:  # an execution that cannot run here is a result, not an error
                    found[f"{execution} {precision}"] = str(error).splitlines()[0]
                    continue
                found[f"{execution} {precision}"] = {
                    "graph_against_eager": float((graph - eager).abs().max()),
                    "eager_against_eager": float((again - eager).abs().max()),
                    "largest_logit": float(eager.abs().max()),
                }
        report.add(f"graph check {network}", found)


def compare(report: Report, settings: Settings, device: torch.device) -> dict[str, Candidate]:
    """Benchmark the published trainings; return the fastest fp32 candidate for each."""
    fastest: dict[str, Candidate] = {}
    for name, (config, shape) in JOBS.items():
        candidates = [Candidate(NAIVE), Candidate("loop")]
        for execution in EXECUTIONS:
            for precision in ("fp32", "tf32", "bf16"):
                candidates.append(Candidate(execution, precision, graph=True))
            candidates.append(Candidate(execution))
        result = bench(config, shape, candidates, device, settings.rounds, memory=False)
        (settings.out / f"bench-{name.replace(' ', '-')}.json").write_text(result.to_json())
        shown = {str(t.candidate): [round(t.outer_step_ms, 3), round(t.speedup or 0, 1)] for t in result.timings}
        report.add(f"bench {name}: ms per outer step, times naive", {**shown, **result.refused})
        exact = [t.candidate for t in result.timings if t.candidate.precision == "fp32" and t.candidate.graph]
        fastest[name] = exact[0] if exact else result.timings[0].candidate
    return fastest


def trainings(report: Report, fastest: dict[str, Candidate], device: torch.device) -> None:
    """Report the projected wall time of each published training; run the first to its end if there is time."""
    for name, (config, shape) in JOBS.items():
        candidate = fastest[name]
        work = outer_steps(config, shape, candidate, device)
        with precision_of(device, candidate.precision):
            for _ in range(3):
                work()
            torch.cuda.synchronize()
            steps, start = 0, time.perf_counter()
            while time.perf_counter() - start < 5:
                for _ in range(20):
                    work()
                torch.cuda.synchronize()
                steps += 20
            seconds = (time.perf_counter() - start) / steps
            projected = seconds * config.outer.outer_steps
            content = {"execution": str(candidate), "ms_per_outer_step": 1000 * seconds, "projected_s": projected}
            if name == "omniglot 5-way" and projected < report.left() / 2:
                start = time.perf_counter()
                for _ in range(config.outer.outer_steps):
                    work()
                torch.cuda.synchronize()
                content["measured_s"] = time.perf_counter() - start
        report.add(f"training {name}, {config.outer.outer_steps} outer steps", content)


def evaluation(report: Report, candidate: Candidate, device: torch.device) -> None:
    """Report the time of 10,000 evaluation episodes with published settings."""
    config = preset("omniglot-1shot-5way").replace(execution=candidate.execution)
    algorithm = build_algorithm(config, OMNIGLOT, device)
    fresh = initial_params(for_images, OMNIGLOT, config.task.way, seed=0)
    state = algorithm.initial_state({name: p.to(device) for name, p in fresh.items()})
    sampler = EpisodeSampler(random_store(OMNIGLOT, device), 5, 1, 1)
    with precision_of(device, "fp32"):
        start = time.perf_counter()
        measure(algorithm, state, sampler, 10_000, seed=0)
    report.add("10,000 evaluation episodes", {"execution": candidate.execution, "s": time.perf_counter() - start})


def main(settings: Settings) -> None:
    """Run all parts within the time limit."""
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks/gpu.py: there is no GPU here")
    device, report = torch.device("cuda", 0), Report(settings.out, settings.minutes)
    check_graphs(report, device)
    fastest = compare(report, settings, device)
    trainings(report, fastest, device)
    evaluation(report, fastest["omniglot 5-way"], device)


if __name__ == "__main__":
    main(tyro.cli(Settings))
