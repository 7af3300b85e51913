"""Progress in Jupyter: a real notebook, executed by a real kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.easy import REPOSITORY

CELL = """
import torchreptile as tr
from torchreptile.training import progress_bars

progress_bars.LIVE_SECONDS = 0.0  # every step is shown
config = tr.preset("glyphs-1shot-5way").replace(
    outer_steps=6, meta_batch=2, inner_steps=2, monitor_every=3, monitor_episodes=2, device="cpu"
)
run = tr.train(config, "run")
print("steps:", run.step)
run
"""


@pytest.mark.filterwarnings("default")  # of Jupyter's own packages
def test_a_training_in_a_notebook_shows_its_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient: Any = pytest.importorskip("nbclient", reason="needed to execute a notebook")
    nbformat: Any = pytest.importorskip("nbformat", reason="needed to execute a notebook")
    pytest.importorskip("ipykernel", reason="needed to execute a notebook")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    shown: list[str] = []

    class Client(nbclient.NotebookClient):  # type: ignore[misc]
        """Notes the states of outputs that change in place; the notebook has the last one alone."""

        def process_message(self, message: dict[str, Any], cell: Any, index: int) -> Any:
            if message["msg_type"] in ("display_data", "update_display_data"):
                shown.append(message["content"]["data"]["text/plain"])
            return super().process_message(message, cell, index)

    client = Client(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    printed = "".join(output.get("text", "") for output in notebook.cells[0].outputs if output.output_type == "stream")
    assert "steps: 6" in printed
    (table,) = [
        output.data["text/html"] for output in notebook.cells[0].outputs if output.output_type == "execute_result"
    ]
    assert "<th>outer steps</th><td>6</td>" in table
    bars = [text for text in shown if text.startswith("training ")]
    assert len(bars) == 5  # every step but the first, which sets the pace
    assert "━━━" in bars[-1]
    assert "step 6 of 6" in bars[-1]
    assert "" in shown[shown.index(bars[-1]) :]  # cleared at the end
    lines = "\n".join(shown)
    assert "val classes:" in lines
    assert "finished after 6 outer steps" in lines
    assert "ipywidgets" not in lines + printed
