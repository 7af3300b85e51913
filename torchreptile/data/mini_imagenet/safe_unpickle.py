"""Pickles of arrays, read without running them.

A pickle is a program: loading a stranger's runs it. The reader here follows the same instructions, but builds dicts,
lists, tuples, sets, strings, numbers and numpy arrays alone, the arrays by itself from their bytes. Whatever else
a pickle names is refused by that name before anything of it is touched. Pickles of Python 2 are read too.
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

LARGE = 2**16  # bytes from which a string is left in the file, to be read from there

_DAMAGE = (
    pickle.UnpicklingError, EOFError, LookupError, ValueError, TypeError, AttributeError, AssertionError,
    OverflowError, MemoryError, RecursionError, struct.error, OSError,
)  # fmt: skip


def read(path: Path) -> Any:
    """What a pickle holds. Strings of Python 2 come as bytes; large arrays are views of the file.

    Raises:
        DataError: not a pickle, a damaged one, or one that names anything but arrays and plain containers.
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
        raise DataError(f"{path}: not a whole pickle ({reason}); get it again") from error


class _ForeignError(Exception):
    """Something that a pickle must not name."""


@final
class _Mapped:
    """A file for the unpickler, whose large strings stay where they are."""

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
    """Stands for a numpy.dtype: of the plain ones alone, as a crafted dtype can reach any memory."""

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
    """Stands for a numpy.ndarray until its bytes are known."""

    def __init__(self, *ignored: Any) -> None:
        self.value: Any = None

    def set_state(self, state: Any) -> None:
        _, shape, dtype, by_columns, content = state
        self.value = _array(content, dtype, shape, by_columns)


@final
class _NdArray:
    """The class numpy.ndarray, which is only ever handed to ``_reconstruct``."""


def _array(content: Any, dtype: _DType, shape: Any, by_columns: Any) -> Any:
    """An array over ``content``, its bytes in memory or in the file; of Python objects, from the list of them."""
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
    return _array(content, dtype, shape, order)


def _scalar(dtype: _DType, content: Any) -> Any:
    return np.frombuffer(content, dtype=dtype.dtype)[0].item()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How Python 3 writes bytes in the old protocols."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _ForeignError(f"_codecs.encode to {encoding!r}")
    return text.encode("latin1")


def _text(value: Any) -> str:
    return bytes(value).decode("latin1") if isinstance(value, (bytes, memoryview)) else str(value)


# What a pickle may name, and what it gets. numpy.core became numpy._core with numpy 2.
_GIVEN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _NdArray,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
}
for _core in ("numpy.core", "numpy._core"):
    _GIVEN[f"{_core}.multiarray", "_reconstruct"] = _Array
    _GIVEN[f"{_core}.multiarray", "scalar"] = _scalar
    _GIVEN[f"{_core}.numeric", "_frombuffer"] = _from_buffer
for _builtins in ("builtins", "__builtin__"):
    _GIVEN.update({(_builtins, kind.__name__): kind for kind in (list, dict, set)})


# Python's own reader written in Python: unlike the fast one it leaves a string where the file has it.
@final
class _Reader(pickle._Unpickler):
    """The unpickler's instructions, less those that reach for code or for objects elsewhere."""

    stack: list[Any]
    memo: dict[int, Any]
    read: Callable[[int], Any]
    append: Callable[[Any], None]

    def __init__(self, file: _Mapped) -> None:
        # Strings of Python 2 hold pixels: as bytes they need not be decoded.
        super().__init__(file, fix_imports=False, encoding="bytes")
        self._arrays: list[_Array] = []

    def find_class(self, module: str, name: str) -> Any:
        given = _GIVEN.get((_text(module), _text(name)))
        if given is None:
            raise _ForeignError(f"{_text(module)}.{_text(name)}")
        return given

    def persistent_load(self, pid: Any) -> Any:
        raise _ForeignError(f"the object {pid!r} outside of it")

    def get_extension(self, code: int) -> None:
        raise _ForeignError(f"the extension {code}")

    def load_build(self) -> None:
        """The state of an array or a dtype, and of nothing else: attributes of other things are not for a pickle."""
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
        """A string like another; the unpickler's own way copies it."""
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(size))

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch,
        pickle.BUILD[0]: load_build,
        pickle.BYTEARRAY8[0]: load_bytearray8,
    }
