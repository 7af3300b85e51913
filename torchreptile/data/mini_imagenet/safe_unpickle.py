"""Pickles of arrays, read without running code from them.

A pickle is a program, and loading one runs it. This reader follows the same instructions, but builds only dicts, lists,
tuples, sets, strings, numbers and numpy arrays, the arrays directly from their bytes. Anything else that a pickle
names is refused before it is imported or called. Pickles of Python 2 are supported.

The work is bounded by the length of the file: keys of dicts and members of sets are plain values, because a tuple of
tuples of tuples can take for ever to hash, and a pickle may not copy more values than it has bytes.
"""

from __future__ import annotations

import math
import mmap
import pickle
import re
import struct
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal, cast, final

import numpy as np

from torchreptile.core.errors import DataError
from torchreptile.core.files import open_regular

MAX_BYTES = 64 * 2**30  # the pickles that circulate have less than 1 GB
MAX_AXES, MAX_SIDE = 32, 2**40  # of an array
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
        with open_regular(path, MAX_BYTES) as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
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
        self.size = len(mapped)

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
        if not isinstance(state, tuple) or len(state) < 2 or any(field is not None for field in state[2:5]):
            raise _ForeignError(f"numpy.dtype {self._name!r} with fields")
        self._order = _text(state[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        if not _PLAIN.fullmatch(self._name):
            raise _ForeignError(f"numpy.dtype {self._name!r}")
        plain = np.dtype(self._name)
        return plain.newbyteorder(cast(Literal["<", ">"], self._order)) if self._order in set("<>") else plain


@final
class _Array:
    """A stand-in for numpy.ndarray until its bytes are known.

    Attributes:
        value: the array, None until then.
        memo_keys: where the reader remembers the stand-in, to remember the array there instead.
    """

    def __init__(self, *ignored: Any) -> None:
        self.value: Any = None
        self.memo_keys: list[int] = []

    def set_state(self, state: Any) -> None:
        _, shape, dtype, by_columns, content = state
        self.value = _array(content, dtype, shape, by_columns)


@final
class _NdArray:
    """A stand-in for the class numpy.ndarray, which pickles only pass to ``_reconstruct``."""


def _array(content: Any, dtype: _DType, shape: Any, by_columns: Any) -> Any:
    """Return an array over ``content``: its bytes, in memory or in the file, or a list of Python objects."""
    kind = dtype.dtype
    known = isinstance(shape, tuple) and len(shape) <= MAX_AXES
    if not known or not all(type(side) is int and 0 <= side <= MAX_SIDE for side in shape):
        raise ValueError("the shape of an array is not a tuple of whole numbers")
    if kind.kind == "O":
        made = np.empty(len(content), dtype=object)
        made[:] = content
    else:
        made = np.frombuffer(content, dtype=kind)
    if kind.kind == "U" and made.size:
        points = made.view(np.dtype(np.uint32).newbyteorder(kind.byteorder))
        if int(points.max()) > sys.maxunicode:
            raise ValueError("an array of text has characters that do not exist")
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
    if not isinstance(text, str) or _text(encoding) not in ("latin1", "latin-1"):
        raise _ForeignError(f"_codecs.encode to {_text(encoding)[:20]!r}")
    return text.encode("latin1")


def _text(value: Any) -> str:
    """Return text from a string of Python 2 or 3; anything else in the place of a name is damage."""
    if isinstance(value, (bytes, memoryview)):
        return bytes(value[:1000]).decode("latin1")
    if not isinstance(value, str):
        raise ValueError(f"a {type(value).__name__} in the place of a name")
    return value[:1000]


def _plain(key: Any) -> Any:
    """Return a key of a dict or a member of a set, once it is a plain value that is hashed at once."""
    number = type(key) is int and abs(key) < 2**64
    if key is None or number or type(key) in (bool, float) or (isinstance(key, (str, bytes)) and len(key) < LARGE):
        return key
    raise ValueError(f"a {type(key).__name__} in the place of a name or number")


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
_PLAIN = re.compile(r"[biufUS]\d{0,9}|O8?|\?|bool")  # no lists of fields, no shapes within an element


@final
class _Memo(dict[int, Any]):
    """What a pickle remembers; each stand-in knows where, so that no search is needed when its array is made."""

    def __setitem__(self, key: int, value: Any) -> None:
        if isinstance(value, _Array):
            value.memo_keys.append(key)
        super().__setitem__(key, value)


_BASE: Any = pickle._Unpickler
_CONTAINERS = (list, dict, set, OrderedDict, defaultdict)


# The unpickler written in Python: unlike the one in C, it does not copy strings from the file.
@final
class _Reader(_BASE):  # type: ignore[misc]
    """An unpickler without the instructions that reach code or objects outside the pickle."""

    stack: list[Any]
    metastack: list[list[Any]]
    memo: dict[int, Any]
    read: Callable[[int], Any]
    append: Callable[[Any], None]

    def __init__(self, file: _Mapped) -> None:
        # Strings of Python 2 contain pixels: read as bytes, they need not be decoded.
        super().__init__(file, fix_imports=False, encoding="bytes")
        self.memo = _Memo()
        self._copies_left = 2 * file.size + 1000  # honest pickles copy less than they have bytes

    def find_class(self, module: str, name: str) -> Any:
        replacement = _ALLOWED.get((_text(module), _text(name)))
        if replacement is None:
            raise _ForeignError(f"{_text(module)}.{_text(name)}")
        return replacement

    def persistent_load(self, pid: Any) -> Any:
        raise _ForeignError(f"the object {_text(pid)!r} outside of it")

    def get_extension(self, code: int) -> None:
        raise _ForeignError(f"the extension {code}")

    def load_build(self) -> None:
        """Set the state of an array or a dtype; a pickle may not set attributes of anything else."""
        state = self.stack.pop()
        made = self.stack[-1]
        if not isinstance(made, (_Array, _DType)):
            raise _ForeignError(f"a state for {type(made).__name__}")
        if isinstance(state, tuple):
            self._copy(sum(len(part) for part in state if isinstance(part, (list, str))))
        made.set_state(state)
        if isinstance(made, _Array):
            self.stack[-1] = made.value
            for key in made.memo_keys:
                if self.memo[key] is made:
                    self.memo[key] = made.value

    def load_bytearray8(self) -> None:
        """Read a bytearray like any other string, as the inherited method would copy it."""
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(size))

    def load_setitem(self) -> None:
        """Set an item of a dict."""
        self._require_plain(self.stack[-3], [self.stack[-2]])
        _BASE.load_setitem(self)

    def load_setitems(self) -> None:
        """Set items of a dict."""
        self._require_plain(self.metastack[-1][-1], self.stack[::2])
        _BASE.load_setitems(self)

    def load_dict(self) -> None:
        """Make a dict."""
        self._require_plain({}, self.stack[::2])
        _BASE.load_dict(self)

    def load_additems(self) -> None:
        """Add members to a set."""
        self._require_plain(self.metastack[-1][-1], self.stack)
        _BASE.load_additems(self)

    def load_frozenset(self) -> None:
        """Make a frozen set."""
        self._require_plain(set(), self.stack)
        _BASE.load_frozenset(self)

    def load_reduce(self) -> None:
        """Call a replacement by the instruction of today."""
        self._require_cheap(self.stack[-2], self.stack[-1])
        _BASE.load_reduce(self)

    def _instantiate(self, klass: Any, args: Any) -> None:
        """Call a replacement by the instructions of old."""
        self._require_cheap(klass, args)
        _BASE._instantiate(self, klass, args)

    def _require_plain(self, target: Any, keys: list[Any]) -> None:
        """Refuse keys or members that could take for ever to hash, and targets other than dicts and sets."""
        if not isinstance(target, (dict, set)):
            raise ValueError(f"items for a {type(target).__name__}")
        for key in keys:
            _plain(key)

    def _require_cheap(self, function: Any, arguments: Any) -> None:
        """Refuse a call that makes more of what it is given than the file has bytes."""
        if not isinstance(arguments, (tuple, list)):
            raise ValueError("a call without arguments")
        container = any(function is kind for kind in _CONTAINERS)
        for given in arguments:
            if isinstance(given, (list, tuple, str, bytes, memoryview)):
                self._copy(len(given))
            if not container or any(given is kind for kind in _CONTAINERS):  # the latter fills a defaultdict
                continue
            if not isinstance(given, (list, tuple)):
                raise ValueError(f"a container made of a {type(given).__name__}")
            if function is not list:
                pairs = function is not set
                self._require_plain(
                    {}, [part[0] if pairs and isinstance(part, (list, tuple)) else part for part in given]
                )

    def _copy(self, count: int) -> None:
        """Count values that are copied."""
        self._copies_left -= count
        if self._copies_left < 0:
            raise ValueError("it asks for more than it holds")

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **_BASE.dispatch,
        pickle.BUILD[0]: load_build,
        pickle.BYTEARRAY8[0]: load_bytearray8,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
        pickle.ADDITEMS[0]: load_additems,
        pickle.FROZENSET[0]: load_frozenset,
        pickle.REDUCE[0]: load_reduce,
    }
