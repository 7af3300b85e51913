"""``reptile train``."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from torchreptile.cli.flags.evaluate import Evaluate
from torchreptile.core.config import Config
from torchreptile.core.config.presets import preset
from torchreptile.core.distributed.launcher import launch, started_by_launcher
from torchreptile.core.errors import ConfigError
from torchreptile.core.files import free


@dataclass(frozen=True)
class Train:
    """Meta-train. Start from a preset (see ``reptile presets``) or from the published Omniglot 5-way settings, and
    change what you like. The original code's flags are understood too (--meta-iters, --inner-iters, --classes,
    --learning-rate, --meta-step, --eval-iters, --eval-samples, --checkpoint, --sgd, --foml, --pretrained ...).
    """

    preset: Annotated[Positional[str], arg(metavar="PRESET")] = ""
    """A named group of settings; see ``reptile presets``."""
    config: Config = field(default_factory=Config)
    out: Path | None = None
    """Run folder to make; it must not exist. By default under runs/."""
    resume: Path | None = None
    """Resume this run exactly, as if it had not been stopped."""
    model: str = ""
    """A network of your own: a Python file and a class or function in it, such as net.py:Net, called with the image
    shape (C, H, W) and the number of outputs. The file is run; see docs/own-model.md. Name it again with --resume."""
    pretrained: bool = False
    """Do not train: evaluate the run folder named by --out (the original code's flag)."""
    dry_run: bool = False
    """Show what would be done, and do nothing."""
    log: str = ""
    """Log elsewhere as well: tensorboard, wandb or mlflow, or several, separated by commas. Name them again with
    --resume; see docs/callbacks.md."""
    workers: int = 1
    """Processes on this machine that share the tasks of every meta-batch; one per core is fastest on a CPU. On
    several machines or GPUs: torchrun -m torchreptile train ..."""

    def run(self) -> int:
        """Train, resume, or show."""
        if self.workers != 1 and not self.dry_run and not started_by_launcher():
            return launch(self.workers, sys.argv[1:])
        from torchreptile.cli.commands.train import describe, resume, train

        if self.dry_run and (self.resume is not None or self.pretrained):
            raise ConfigError(
                "--dry-run shows what a new training would do; it goes with neither --resume nor --pretrained"
            )
        if self.resume is not None:
            if self.config != (preset(self.preset) if self.preset else Config()) or self.out is not None:
                raise ConfigError(f"--resume {self.resume} resumes with the run's own settings; give no others")
            return resume(self.resume, self.log, self.model)
        if self.pretrained:
            return self._evaluation().run()
        out = self.out or free(Path("runs") / self._name())
        if self.dry_run:
            return describe(self.config, out, self.model)
        return train(self.config, out, self.log, self.model)

    def _name(self) -> str:
        """Return the default name of the run."""
        task, algorithm = self.config.task, self.config.method.algorithm
        return self.preset if self.preset and not (task.data or task.table) else f"{task.title}-{algorithm}"

    def _evaluation(self) -> Evaluate:
        """Return the evaluation that --pretrained requests."""
        if self.out is None:
            raise ConfigError("--pretrained needs --out RUN (or --checkpoint RUN): the run to evaluate")
        task, evaluation, run = self.config.task, self.config.evaluation, self.config.run
        return Evaluate(
            self.out,
            episodes=evaluation.eval_episodes,
            shots=task.shots,
            way=task.way,
            eval_steps=evaluation.eval_steps,
            eval_batch=evaluation.eval_batch,
            finetune_steps=evaluation.finetune_steps,
            seed=run.seed,
            device=run.device,
            execution=run.execution,
            precision=run.precision,
            task_chunk=run.task_chunk,
            model=self.model,
        )
