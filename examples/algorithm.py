"""An algorithm of your own: Reptile whose meta-gradient is averaged with its sign.

    reptile train glyphs-1shot-5way --algorithm examples/algorithm.py:SignedReptile --sign-share 0.2 --max-minutes 1
    reptile evaluate runs/glyphs-1shot-5way --algorithm examples/algorithm.py:SignedReptile

In Python: ``tr.train(tr.preset("glyphs-1shot-5way", algorithm=SignedReptile), out="runs/signed")``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from torchreptile import AlgorithmRow, AlgorithmSettings
from torchreptile.algorithms.meta_state import MetaGradient, MetaState
from torchreptile.algorithms.reptile import Reptile
from torchreptile.core.config.validation import at_least, at_most
from torchreptile.data.episodes import Episodes


@dataclass(frozen=True)
class SignedSettings(AlgorithmSettings):
    """The algorithm's own settings; each becomes a flag, its docstring the help."""

    sign_share: float = 0.1
    """signed-reptile: share of the meta-gradient's sign, scaled to the gradient's mean size, from 0 to 1."""

    def check_values(self) -> None:
        """Refuse a share outside 0 to 1."""
        at_least(0, sign_share=self.sign_share)
        at_most(1, sign_share=self.sign_share)


class SignedReptile(Reptile):
    """Reptile, moved a little by the direction of every weight alone."""

    row = AlgorithmRow(
        name="signed-reptile",
        title="Signed Reptile",
        implementation=f"{__name__}:SignedReptile",
        settings=SignedSettings,
        plain_steps=True,
    )

    def meta_gradient(self, state: MetaState, episodes: Episodes, generator: torch.Generator) -> MetaGradient:
        """Return phi - mean(phi_task), mixed with its sign; ``state`` is left as it was."""
        result = super().meta_gradient(state, episodes, generator)
        share = self.config.own(SignedSettings).sign_share
        gradient = {
            name: (1 - share) * g + share * g.abs().mean() * g.sign() for name, g in result.gradient.items()
        }  # fmt: skip
        return replace(result, gradient=gradient)
