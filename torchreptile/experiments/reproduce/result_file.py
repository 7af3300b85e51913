"""The result.json of an experiment: earlier results are read, and later ones added as trainings finish."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torchreptile.core.environment import environment
from torchreptile.core.errors import RunError
from torchreptile.core.files import write_text
from torchreptile.experiments.reproduce.experiment import Experiment
from torchreptile.experiments.reproduce.result import Cell, Conditions, Reproduced, TrainedArm, read_reproduced
from torchreptile.experiments.reproduce.training_job import TrainingJob

RESULT = "result.json"


class ResultFile:
    """The result.json of an experiment, extended as trainings finish."""

    def __init__(self, out: Path, experiment: Experiment, share: float) -> None:
        """Read the results of earlier calls.

        Raises:
            RunError: the file is damaged or belongs to another experiment or other settings.
        """
        self._out, self._experiment, self._share = out, experiment, share
        self._commands: list[str] = []
        self._note = ""
        self._trained: dict[tuple[str, int], TrainedArm] = {}
        if not (out / RESULT).is_file():
            return
        before = read_reproduced(out / RESULT)
        if (before.name, before.share) != (experiment.name, share):
            raise RunError(f"{out} holds {before.name} with --budget {before.share:g}; name another folder with --out")
        if departure := before.departure(experiment):
            raise RunError(f"{out / RESULT} has other settings ({departure}); name another folder with --out")
        self._commands, self._note = before.commands, before.note
        self._trained = {(trained.arm, trained.seed): trained for trained in before.trainings}

    def has(self, job: TrainingJob) -> bool:
        """Return whether all evaluations of a job are stored."""
        trained = self._trained.get((job.arm.name, job.config.run.seed))
        if trained is None:
            return False
        known = {cell.conditions for cell in trained.cells}
        return all(Conditions(job.split, job.episodes, measurement) in known for measurement in job.arm.measurements)

    def add(self, trained: TrainedArm) -> None:
        """Store a training, together with earlier evaluations of the same weights under other conditions."""
        before = self._trained.get((trained.arm, trained.seed))
        if before is not None and (before.outer_steps, before.seconds) == (trained.outer_steps, trained.seconds):
            now = {cell.conditions for cell in trained.cells}
            others = [cell for cell in before.cells if cell.conditions not in now]
            if _most_episodes(others) > _most_episodes(trained.cells):
                trained = replace(trained, by_step=before.by_step, waves=before.waves)
            trained = replace(trained, cells=[*others, *trained.cells])
        self._trained[trained.arm, trained.seed] = trained
        self._commands = list(dict.fromkeys([*self._commands, str(environment()["command"])]))
        write_text(self._out / RESULT, self.reproduced().to_json())

    def reproduced(self) -> Reproduced:
        """Return all stored trainings, in the experiment's order."""
        order = {arm.name: place for place, arm in enumerate(self._experiment.arms)}
        trainings = sorted(self._trained.values(), key=lambda trained: (order[trained.arm], trained.seed))
        return Reproduced(self._experiment.name, self._share, trainings, self._commands, self._note)


def _most_episodes(cells: Sequence[Cell]) -> int:
    """Return the largest number of episodes of any cell."""
    return max((cell.episodes for cell in cells), default=0)
