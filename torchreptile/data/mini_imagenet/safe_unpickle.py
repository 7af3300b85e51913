"""Pickles of arrays, read without running code from them.

A pickle is a program, and loading one runs it. This reader follows the same instructions, but builds only dicts, lists,
tuples, sets, strings, numbers and numpy arrays, the arrays directly from their bytes. Anything else that a pickle
names is refused before it is imported or called. Pickles of Python 2 are supported.
"""

from __future__ import annotations

import math
import mmap
import pickle
import struct
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal, cast, final

import numpy as np

from torchreptile.core.errors import DataError

LARGE = 2**16  # strings of at least this many bytes stay in the mapped file

_DAMAGE = (
    pickle.UnpicklingError, EOFError, LookupError, ValueError, TypeError, AttributeError, AssertionError,
    OverflowError, MemoryError, RecursionError, struct.error, OSError,
)  # fmt: skip


def read(path: Path) -> Any:
    """Read the content of a pickle.

    Returns:
        The content; strings of Python 2 are bytes, and large arrays are views of the mapped file.

    Raises:
        DataError: the file is not a pickle, is damaged, or names anything other than arrays and plain containers.
    """
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise DataError(f"{path}: cannot be read ({error})") from error
    try:
        return _Reader(_Mapped(mapped)).load()
    except _ForeignError as error:
        raise DataError(
            f"{path}: the pickle names {error}; only numpy arrays and plain containers are read, and nothing in it "
            "was run"
        ) from error
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: not a complete pickle ({reason}); get it again") from error


class _ForeignError(Exception):
    """A name in a pickle that is refused."""


@final
class _Mapped:
    """A mapped file for the unpickler, from which large strings are not copied."""

    def __init__(self, mapped: mmap.mmap) -> None:
        self._mapped, self._view, self._at = mapped, memoryview(mapped), 0

    def read(self, size: int) -> Any:
        part = self._view[self._at : self._at + size]
        self._at += len(part)
        if len(part) < size:
            raise EOFError("it is cut off")
        return part if size >= LARGE else bytes(part)

    def readline(self) -> bytes:
        end = self._mapped.find(b"\n", self._at) + 1
        line = bytes(self._view[self._at : end or len(self._view)])
        self._at += len(line)
        return line

    def readinto(self, target: bytearray) -> int:
        target[:] = self.read(len(target))
        return len(target)


@final
class _DType:
    """A stand-in for numpy.dtype, restricted to plain dtypes, as a crafted dtype can reach any memory."""

    def __init__(self, name: Any = "", *flags: Any) -> None:
        self._name, self._order = _text(name), "|"

    def set_state(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[2:5] not in ((None, None, None), ()):
            raise _ForeignError(f"numpy.dtype {self._name!r} with fields")
        self._order = _text(state[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        if self._name[:1] not in set("biufUSO?"):
            raise _ForeignError(f"numpy.dtype {self._name!r}")
        plain = np.dtype(self._name)
        return plain.newbyteorder(cast(Literal["<", ">"], self._order)) if self._order in set("<>") else plain


@final
class _Array:
    """A stand-in for numpy.ndarray until its bytes are known."""

    def __init__(self, *ignored: Any) -> None:
        self.value: Any = None

    def set_state(self, state: Any) -> None:
        _, shape, dtype, by_columns, content = state
        self.value = _array(content, dtype, shape, by_columns)


@final
class _NdArray:
    """A stand-in for the class numpy.ndarray, which pickles only pass to ``_reconstruct``."""


def _array(content: Any, dtype: _DType, shape: Any, by_columns: Any) -> Any:
    """Return an array over ``content``: its bytes, in memory or in the file, or a list of Python objects."""
    kind = dtype.dtype
    if kind.kind == "O":
        made = np.empty(len(content), dtype=object)
        made[:] = content
    else:
        made = np.frombuffer(content, dtype=kind)
    if math.prod(shape) != len(made):
        raise ValueError(f"an array of shape {shape} has {len(made)} values")
    return made.reshape(shape, order="F" if by_columns in (True, 1, "F", b"F") else "C")


def _from_buffer(content: Any, dtype: _DType, shape: Any, order: Any) -> Any:
    """Return an array in place of numpy's ``_frombuffer``."""
    return _array(content, dtype, shape, order)


def _scalar(dtype: _DType, content: Any) -> Any:
    """Return a number in place of numpy's ``scalar``."""
    return np.frombuffer(content, dtype=dtype.dtype)[0].item()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Return bytes in place of ``_codecs.encode``, with which Python 3 writes bytes in the old protocols."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _ForeignError(f"_codecs.encode to {encoding!r}")
    return text.encode("latin1")


def _text(value: Any) -> str:
    """Return text from a string of Python 2 or 3."""
    return bytes(value).decode("latin1") if isinstance(value, (bytes, memoryview)) else str(value)


# The names that a pickle may use, and their replacements. numpy.core became numpy._core in numpy 2.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _NdArray,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _Array
    _ALLOWED[f"{_core}.multiarray", "scalar"] = _scalar
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _from_buffer
for _builtins in ("builtins", "__builtin__"):
    _ALLOWED.update({(_builtins, kind.__name__): kind for kind in (list, dict, set)})


# The unpickler written in Python: unlike the one in C, it does not copy strings from the file.
@final
class _Reader(pickle._Unpickler):
    """An unpickler without the instructions that reach code or objects outside the pickle."""

    stack: list[Any]
    memo: dict[int, Any]
    read: Callable[[int], Any]
    append: Callable[[Any], None]

    def __init__(self, file: _Mapped) -> None:
        # Strings of Python 2 contain pixels: read as bytes, they need not be decoded.
        super().__init__(file, fix_imports=False, encoding="bytes")
        self._arrays: list[_Array] = []

    def find_class(self, module: str, name: str) -> Any:
        replacement = _ALLOWED.get((_text(module), _text(name)))
        if replacement is None:
            raise _ForeignError(f"{_text(module)}.{_text(name)}")
        return replacement

    def persistent_load(self, pid: Any) -> Any:
        raise _ForeignError(f"the object {pid!r} outside of it")

    def get_extension(self, code: int) -> None:
        raise _ForeignError(f"the extension {code}")

    def load_build(self) -> None:
        """Set the state of an array or a dtype; a pickle may not set attributes of anything else."""
        state = self.stack.pop()
        made = self.stack[-1]
        if not isinstance(made, (_Array, _DType)):
            raise _ForeignError(f"a state for {type(made).__name__}")
        made.set_state(state)
        if isinstance(made, _Array):
            self.stack[-1] = made.value
            for key in [key for key, value in self.memo.items() if value is made]:
                self.memo[key] = made.value

    def load_bytearray8(self) -> None:
        """Read a bytearray like any other string, as the inherited method would copy it."""
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(size))

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch,
        pickle.BUILD[0]: load_build,
        pickle.BYTEARRAY8[0]: load_bytearray8,
    }
