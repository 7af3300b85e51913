"""Flags of ``reptile demo``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Demo:
    """Serve a web page on which you draw your own symbols, a few times each, and watch the network adapt to them and
    classify a new drawing. Nothing leaves this machine; see docs/demo.md.
    """

    weights: str = "omniglot-5way"
    """A run folder or the name of shipped weights, trained with reptile or foml."""
    port: int = 8000
    """Port to listen on; 0 picks a free one."""
    host: str = "127.0.0.1"
    """Address to listen on. By default only this machine can connect; with any other address the page requires the
    token that is printed with its URL."""
    open: bool = False
    """Open the page in the browser."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    def run(self) -> int:
        """Serve until Ctrl-C."""
        from torchreptile.inference.demo.server import serve

        return serve(self.weights, self.host, self.port, self.device, self.open)
