"""One checked way to take each kind of argument, for functions and flags alike.

Each function takes the argument's name and value, returns the value in the form that
calling code uses, and raises an `InputError` that names both and says what would do.
Values that are being traced (`optax.inject_hyperparams`, a user's own `vmap`) cannot be
looked at: the functions of numbers return them as they are.
"""

from __future__ import annotations

import math
import operator
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lrscape.errors import InputError, unknown_name

# Counts beyond this do not fit the 32-bit integers that programs count in.
LARGEST_COUNT = 2**31 - 1
# Schedules may be longer than what is counted: they subtract in 64 bits.
LARGEST_STEPS = 2**63 - 1
# What `jax.random.key` and NumPy's generators both take.
LARGEST_SEED = 2**32 - 1
_SHOWN = 60  # characters of a value that a message repeats


def is_concrete(value: Any) -> bool:
    """Whether a value can be looked at: it is not being traced."""
    return not isinstance(value, jax.core.Tracer)


def shown(value: Any) -> str:
    """A value as a message repeats it: short, on one line, whatever it is.

    Example:
        >>> shown("a" * 100)
        "'aaaaaaaaaaaaaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaaaaaaaaaaaaaa'"
    """
    if isinstance(value, np.ndarray | jax.Array) and np.ndim(value):
        return f"an array of shape {np.shape(value)} and dtype {value.dtype}"
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python converts to text
        text = f"an integer of about {int(value.bit_length() * 0.30103) + 1} digits"
    text = " ".join(text.split()).encode("utf-8", "backslashreplace").decode()
    if len(text) > _SHOWN:
        half = (_SHOWN - 2) // 2
        text = f"{text[:half]}...{text[-half:]}"
    return text


def printable(text: str) -> str:
    r"""A text for a terminal, which takes control characters for commands.

    Example:
        >>> printable("run\x1b[2J")
        'run\\x1b[2J'
    """
    return "".join(
        letter
        if letter.isprintable() or letter == "\n"
        else letter.encode("unicode_escape").decode()
        for letter in text
    )


def number(name: str, value: Any) -> Any:
    """A number as a Python float, or the traced value.

    Args:
        name: what the message calls it.
        value: anything; a bool, a text, an array of more than one value is refused.

    Raises:
        InputError: not one real number, or one beyond what a float holds.

    Example:
        >>> number('momentum', 1)
        1.0
    """
    if not is_concrete(value):
        return value
    refused = isinstance(value, bool | np.bool_ | str | bytes) or value is None
    if not refused:
        try:
            if np.ndim(value) == 0 and not np.iscomplexobj(value):
                return float(value)
        except OverflowError as error:
            raise InputError(
                f"{name}={shown(value)} is larger than a floating-point number holds"
            ) from error
        except (TypeError, ValueError):
            pass
    raise InputError(f"{name}={shown(value)} must be a number")


def finite(name: str, value: Any) -> Any:
    """A `number` that is neither infinite nor NaN."""
    value = number(name, value)
    if is_concrete(value) and not math.isfinite(value):
        raise InputError(f"{name}={value!r} must be finite")
    return value


def positive(name: str, value: Any) -> Any:
    """A `number` that is positive and finite."""
    value = number(name, value)
    if is_concrete(value) and not (math.isfinite(value) and value > 0):
        raise InputError(f"{name}={value!r} must be positive and finite")
    return value


def not_negative(name: str, value: Any) -> Any:
    """A `number` that is finite and 0 or more."""
    value = number(name, value)
    if is_concrete(value) and not (math.isfinite(value) and value >= 0):
        raise InputError(f"{name}={value!r} must be finite and not negative")
    return value


def above(name: str, value: Any, limit: float, *, meaning: str) -> Any:
    """A finite `number` above a limit; `meaning` says what it is, for the message."""
    value = number(name, value)
    if is_concrete(value) and not (math.isfinite(value) and value > limit):
        raise InputError(f"{name}={value!r} must be above {limit}: {meaning}")
    return value


def fraction(name: str, value: Any, *, below_one: bool = False) -> Any:
    """A `number` from 0 to 1; with `below_one`, 1 itself is refused."""
    value = number(name, value)
    if is_concrete(value) and not (0 <= value < 1 or (value == 1 and not below_one)):
        interval = "[0, 1)" if below_one else "[0, 1]"
        raise InputError(f"{name}={value!r} must lie in {interval}")
    return value


def single(name: str, value: Any) -> Any:
    """A `finite` number that single precision holds, as arrays on a device do.

    Raises:
        InputError: it would become infinite there, or, unless it is 0, vanish or lose
            its digits.

    Example:
        >>> single('variance', 0.01)
        0.01
        >>> single('variance', 1e-300)
        Traceback (most recent call last):
        lrscape.errors.InputError: variance=1e-300 is out of the range of single \
precision, in which it is used: its size must be 0, or from 1.2e-38 to 3.4e+38
    """
    value = finite(name, value)
    tiny, largest = (float(x) for x in (np.finfo("f4").tiny, np.finfo("f4").max))
    if is_concrete(value) and value and not tiny <= abs(value) <= largest:
        raise InputError(
            f"{name}={value!r} is out of the range of single precision, in which it is "
            f"used: its size must be 0, or from {tiny:.1e} to {largest:.1e}"
        )
    return value


def whole(name: str, value: Any, *, least: int = 0, most: int = LARGEST_COUNT) -> int:
    """A whole number as a Python int, within bounds.

    Python and NumPy integers are taken, and integer arrays without axes; floats are
    not, since ``1.5`` was meant as something else.

    Args:
        name: what the message calls it.
        value: anything.
        least: the smallest value that will do.
        most: the largest; by default what a 32-bit integer holds.

    Raises:
        InputError: not a whole number, or out of bounds.

    Example:
        >>> whole('seed', np.int64(3))
        3
    """
    refused = isinstance(value, bool | np.bool_) or not is_concrete(value)
    try:
        if refused or np.ndim(value) != 0:
            raise TypeError
        result = operator.index(value)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name}={shown(value)} must be a whole number, {_range(least, most)}"
        ) from error
    if not least <= result <= most:
        raise InputError(
            f"{name}={shown(result)} must be a whole number, {_range(least, most)}"
        )
    return result


def count(name: str, value: Any, *, most: int = LARGEST_COUNT) -> int:
    """A `whole` number, 1 or more."""
    return whole(name, value, least=1, most=most)


def steps(name: str, value: Any) -> Any:
    """The length of a schedule in updates: a Python int, or the traced value.

    ``100.0`` is as good as 100, since `optax.inject_hyperparams` turns one into the
    other.

    Raises:
        InputError: not a whole number, less than 1, or 2**63 and more.

    Example:
        >>> steps('total_steps', 100.0)
        100
    """
    if not is_concrete(value):
        return value
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    try:
        if isinstance(value, bool | np.bool_) or np.ndim(value) != 0:
            raise TypeError
        result = operator.index(value)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name}={shown(value)} must be a whole number of updates"
        ) from error
    if not 1 <= result <= LARGEST_STEPS:
        raise InputError(
            f"{name}={shown(result)} must be at least 1 update, and less than 2**63"
        )
    return result


def _range(least: int, most: int) -> str:
    if most == LARGEST_COUNT:
        return f"{least} or more (and less than 2**31)"
    return f"from {least} to {most}"


def seed(name: str, value: Any) -> int:
    """Checks a seed of random numbers: a `whole` number below 2**32."""
    return whole(name, value, most=LARGEST_SEED)


def norm(name: str, value: Any) -> Any:
    """A norm as it was computed, returned as it is: one number, not negative.

    What is not finite passes, so that it shows in what is computed of it.
    """
    refused = isinstance(value, bool | np.bool_ | str | bytes)
    try:
        refused = refused or np.shape(value) != ()
        refused = refused or (is_concrete(value) and float(value) < 0)
    except (TypeError, ValueError):
        refused = True
    if refused:
        raise InputError(f"{name}={shown(value)} must be one number, 0 or more")
    return value


def numbers(name: str, value: Any, *, axes: int | None = None) -> Any:
    """Real numbers as an array: a JAX array stays what it is, others become NumPy's.

    Args:
        name: what the message calls them.
        value: anything; values that are being traced will do.
        axes: how many axes the array must have; None is any number.

    Raises:
        InputError: no array, one of other than whole and floating-point numbers, or
            one of another number of axes.

    Example:
        >>> numbers('scales', [0, 1], axes=1)
        array([0, 1])
    """
    array = value
    if not isinstance(value, jax.Array):
        try:
            traced = not all(map(is_concrete, jax.tree.leaves(value)))
            array = jnp.asarray(value) if traced else np.asarray(value)
        except ValueError as error:  # rows of different lengths
            raise InputError(f"{name}={shown(value)} is no array: {error}") from error
    real = jnp.issubdtype(array.dtype, jnp.integer)
    real = real or jnp.issubdtype(array.dtype, jnp.floating)
    if not real or (axes is not None and array.ndim != axes):
        what = "numbers" if axes is None else f"numbers, with {axes} axis"
        what += "es" if axes and axes > 1 else ""
        raise InputError(
            f"{name}={shown(value)} must be an array of {what}; it has shape "
            f"{array.shape} and dtype {array.dtype}"
        )
    return array


def positions(name: str, value: Any, size: int) -> np.ndarray:
    """Positions in something of a given size, (n,); counted from 0, none from the end.

    Example:
        >>> positions('indices', [0, 2], size=3)
        array([0, 2])
    """
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise InputError(f"{name}={shown(value)} is no array: {error}") from error
    if not array.size and array.ndim == 1:
        return array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(f"{name}={shown(value)} must be whole numbers, of shape (n,)")
    if array.min() < 0 or array.max() >= size:
        wrong = array[(array < 0) | (array >= size)][0]
        raise InputError(
            f"{name}: {wrong} is no position; they lie from 0 to {size - 1}"
        )
    return array


def instance(name: str, value: Any, kind: Any, *, way_out: str) -> Any:
    """An object of a class, or of one of several; `way_out` says how to make one."""
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        called = " or ".join(one.__name__ for one in kinds)
        raise InputError(f"{name}={shown(value)} must be a {called}: {way_out}")
    return value


def flag(name: str, value: Any) -> bool:
    """True or False; a text or a number is refused."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name}={shown(value)} must be True or False")
    return bool(value)


def one_of(name: str, value: Any, names: Iterable[Any]) -> Any:
    """One of some names; the error names the nearest one."""
    known = list(names)
    if not isinstance(value, str | None) or value not in known:
        raise unknown_name(name, value, [str(n) for n in known])
    return value


def sequence(name: str, value: Any) -> list[Any]:
    """A list or tuple (or array) of values as a list; a text is none."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise InputError(f"{name}={shown(value)} must be a list or a tuple")
    try:
        return list(value)
    except TypeError as error:  # an array without axes
        raise InputError(f"{name}={shown(value)} must be a list or a tuple") from error


def key(name: str, value: Any) -> jax.Array:
    """One PRNG key, of `jax.random.key` or the older `jax.random.PRNGKey`.

    Raises:
        InputError: no key, or several.
    """
    way_out = "pass jax.random.key(0), say"
    if value is None:
        raise InputError(f"{name}=None must be a PRNG key; {way_out}")
    dtype = getattr(value, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        if np.shape(value) == ():
            return value
        raise InputError(
            f"{name} holds keys of shape {np.shape(value)}; pass one of them"
        )
    if dtype == np.uint32 and np.shape(value) == (2,):
        return value
    raise InputError(f"{name}={shown(value)} must be a PRNG key; {way_out}")


def function(name: str, value: Any, *, takes: str) -> Any:
    """Something that can be called; `takes` says with what, for the message."""
    if not callable(value):
        raise InputError(f"{name}={shown(value)} must be a function of {takes}")
    return value


def transformation(name: str, value: Any) -> optax.GradientTransformation:
    """An Optax transformation: what has ``init`` and ``update``."""
    if not isinstance(value, optax.GradientTransformation):
        way_out = ""
        if callable(value):
            way_out = "; of a schedule, optax.sgd(schedule) makes one"
        raise InputError(
            f"{name}={shown(value)} must be an Optax transformation, such as "
            f"optax.sgd(0.1){way_out}"
        )
    return value


def linen_module(name: str, value: Any) -> Any:
    """A Flax Linen model, by what is called of it."""
    if not hasattr(value, "init_with_output") or isinstance(value, type):
        way_out = "make one with lrscape.models.create"
        if type(value).__module__.partition(".")[0] == "flax" or hasattr(value, "eval"):
            way_out = (
                "a landscape of an NNX model is measured with "
                "lrscape.landscape.nnx_objective"
            )
        raise InputError(
            f"{name}={shown(value)} must be an instance of a flax.linen.Module; "
            f"{way_out}"
        )
    return value


def mask_leaf(path: str, selected: Any, shape: tuple[int, ...]) -> Any:
    """One leaf of a mask, broadcast to the leaf that it selects from.

    Args:
        path: the leaf's, which the message names.
        selected: an array of NumPy's or JAX's.
        shape: of the leaf.

    Returns:
        An array of booleans of that shape and of the same library.

    Raises:
        InputError: another dtype, or a shape that does not broadcast.
    """
    if selected.dtype != bool:
        raise InputError(f"mask: {path} has dtype {selected.dtype}, not bool")
    library = np if isinstance(selected, np.ndarray) else jnp
    try:
        return library.broadcast_to(selected, shape)
    except ValueError as error:
        raise InputError(
            f"mask: {path} has shape {selected.shape}, which does not broadcast "
            f"against {shape}"
        ) from error


def labels(name: str, value: Any, num_outputs: int) -> None:
    """Raises InputError for whole numbers that are no index of an output.

    Args:
        name: what the message calls them.
        value: an array; traced values and those of other dtypes are passed over.
        num_outputs: labels must lie from 0 to one less.

    Example:
        >>> labels('data', np.array([0, 3, 1]), num_outputs=3)
        Traceback (most recent call last):
        ...
        lrscape.errors.InputError: data: label 3 of example 1 has no output: the model
        has 3 outputs, so labels must lie from 0 to 2
    """
    if not is_concrete(value) or not jnp.issubdtype(value.dtype, jnp.integer):
        return
    array = np.asarray(value)
    if not array.size or (array.min() >= 0 and array.max() < num_outputs):
        return
    bad = np.argwhere((array < 0) | (array >= num_outputs))[0]
    raise InputError(
        f"{name}: label {array[tuple(bad)]} of example {bad[0]} has no output: the "
        f"model has {num_outputs} outputs, so labels must lie from 0 to "
        f"{num_outputs - 1}"
    )


def devices(name: str, value: Any) -> list[jax.Device] | None:
    """A list of JAX devices, or None for the caller's default."""
    if value is None:
        return None
    if isinstance(value, jax.Device):
        value = [value]
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise InputError(
            f"{name}={shown(value)} must be a list of devices, such as jax.devices()"
        )
    for device in value:
        if not isinstance(device, jax.Device):
            raise InputError(
                f"{name} holds {shown(device)}, which is no device; pass "
                "jax.devices(), or some of them"
            )
    if not value:
        raise InputError(f"{name}=[] holds no device; pass None for all of them")
    if len(set(value)) != len(value):
        raise InputError(f"{name} names a device twice")
    return list(value)


def path(name: str, value: Any) -> Path:
    """A path that the file system can hold, whether or not anything is there.

    Raises:
        InputError: no path, an empty one, one with a NUL, or one that is too long.
    """
    if isinstance(value, bytes) or not isinstance(value, str | os.PathLike):
        raise InputError(f"{name}={shown(value)} must be a path")
    result = Path(value)
    if not str(value):
        raise InputError(f"{name}='' must be a path")
    if "\0" in str(result):
        raise InputError(f"{name}={shown(str(result))} holds a NUL character")
    try:
        result.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass
    except (OSError, ValueError) as error:  # too long, or not to be encoded
        reason = getattr(error, "strerror", None) or "it cannot be encoded"
        raise InputError(
            f"{name}={shown(str(result))} is no path here: {reason}"
        ) from (error)
    return result


def directory(name: str, value: Any, *, must_exist: bool = False) -> Path:
    """A directory, or unless it `must_exist` a path at which one can be made.

    Raises:
        InputError: something else is there or above it, or nothing is where it must
            exist; what `path` refuses.
    """
    result = path(name, value)
    if must_exist:
        if not result.expanduser().is_dir():
            what = "is no directory" if result.expanduser().exists() else "is not there"
            raise InputError(f"{name}={shown(str(result))} {what}; name a directory")
        return result
    for place in (result, *result.parents):
        if place.exists():
            if not place.is_dir():
                what = "a file is there" if place == result else f"{place} is a file"
                raise InputError(
                    f"{name}={shown(str(result))}: {what}; choose another directory"
                )
            break
    return result


def path_to_write(name: str, value: Any) -> Path:
    """A path for a new regular file, or over one that is there.

    Raises:
        InputError: a directory, a link, a device or another special file is there, or
            what should be its directory is something else.
    """
    result = path(name, value)
    try:
        mode = result.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        for parent in result.parents:
            if parent.exists():
                if not parent.is_dir():
                    raise InputError(
                        f"{name}={shown(str(result))} cannot be written: {parent} is "
                        "no directory"
                    ) from None
                break
        return result
    except PermissionError as error:
        raise InputError(f"{name}={shown(str(result))}: permission denied") from error
    if not stat.S_ISREG(mode):
        raise InputError(
            f"{name}={shown(str(result))} is {file_type(mode)}; name a file that is "
            "new, or a regular one to be replaced"
        )
    return result


def path_to_read(name: str, value: Any) -> Path:
    """A path at which there is a regular file that is no link.

    Raises:
        InputError: nothing is there, or something else than a regular file.
    """
    result = path(name, value)
    try:
        mode = result.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{name}={shown(str(result))}: there is no such file") from (
            error
        )
    except PermissionError as error:
        raise InputError(f"{name}={shown(str(result))}: permission denied") from error
    if not stat.S_ISREG(mode):
        raise InputError(
            f"{name}={shown(str(result))} is {file_type(mode)}; a regular file is read"
        )
    return result


def file_type(mode: int) -> str:
    """Names the kind of file that a status' ``st_mode`` is of, for messages."""
    kinds = {
        stat.S_ISDIR: "a directory",
        stat.S_ISLNK: "a symbolic link",
        stat.S_ISFIFO: "a named pipe",
        stat.S_ISSOCK: "a socket",
        stat.S_ISCHR: "a device",
        stat.S_ISBLK: "a device",
    }
    return next((text for test, text in kinds.items() if test(mode)), "no regular file")
