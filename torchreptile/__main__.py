"""``python -m torchreptile`` is ``reptile``."""

from torchreptile.cli import main

if __name__ == "__main__":
    main()
