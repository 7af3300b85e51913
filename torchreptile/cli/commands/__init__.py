"""What the commands do and print, one module each: with the library, returning an exit code."""
