"""``reptile demo``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Demo:
    """Serve a page on which you draw symbols of your own, a few times each, and see a new drawing classified while the
    network adapts. Nothing leaves this machine; see docs/demo.md.
    """

    weights: str = "omniglot-5way"
    """A run folder, or the name of shipped weights; trained by reptile or foml."""
    port: int = 8000
    """Port to listen on; 0 takes any that is free."""
    host: str = "127.0.0.1"
    """Address to listen on. By default this machine alone can connect; on any other the page needs the token that is
    printed with its address."""
    open: bool = False
    """Open the page in the browser."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    def run(self) -> int:
        """Serve until Ctrl-C."""
        from torchreptile.inference.demo.server import serve

        return serve(self.weights, self.host, self.port, self.device, self.open)
