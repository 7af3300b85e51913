"""The commands' implementations, one module each; every command returns its exit code."""
