"""What every public call asks of its arguments: names, sizes, numbers and keys.

Each check raises one ValueError (TypeError for what is no key, noise or problem at all) that says what was
received and what is allowed. Values of traced arrays are unknown and pass; sizes must be known.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from nfd_jax.names import BACKWARD_WEIGHTS, RECORDS


def concrete(x: Any) -> bool:
    """Whether values are known: neither a tracer nor a mere shape."""
    return not isinstance(x, jax.core.Tracer | jax.ShapeDtypeStruct)


def check_choice(what: str, received: Any, allowed: tuple[str, ...]) -> None:
    """Raise ValueError unless `received` is one of `allowed`."""
    if not isinstance(received, str) or received not in allowed:
        raise ValueError(f"{what} must be one of {', '.join(allowed)}; received {received!r}")


def integer(received: Any) -> int | None:
    """Python's own int for any integer: NumPy's too, and arrays without axes. None for all else, booleans
    among it."""
    if isinstance(received, int) and not isinstance(received, bool):
        return received
    whole = jnp.issubdtype(getattr(received, "dtype", np.bool_), np.integer)
    return int(received) if whole and concrete(received) and np.ndim(received) == 0 else None


def as_size(what: str, received: Any, allowed: str = "a positive integer", least: int = 1) -> int:
    """`received` as Python's int; ValueError unless it is an integer of at least `least`."""
    found = integer(received)
    if found is None or found < least:
        hint = "" if concrete(received) else ", whose value is not known while tracing"
        raise ValueError(f"{what} must be {allowed}; received {received!r}{hint}")
    return found


def as_sizes(**sizes: Any) -> tuple[int, ...]:
    """Positive integers as Python's ints, by the names that a message gives them."""
    return tuple(as_size(what, received) for what, received in sizes.items())


def as_number(
    what: str,
    received: Any,
    allowed: str,
    *,
    least: float = -np.inf,
    above: float = -np.inf,
    below: float | None = np.inf,
    dtype: Any = None,
    hint: str = "",
) -> Any:
    """One real number, a float or, with `dtype`, an array of it, which may be traced.

    ValueError unless least ≤ number < below and number > above; below None lets infinity pass, and NaN never
    does. `allowed` says so in words.
    """
    numeric, shape = kind_of(received)
    if numeric and shape:
        raise ValueError(f"{what} must be one number; received an array of shape {shape}{hint}")
    if not numeric or (dtype is None and not concrete(received)):
        raise ValueError(f"{what} must be {allowed}; received {received!r}")
    if not concrete(received):
        return received if isinstance(received, jax.ShapeDtypeStruct) else jnp.asarray(received, dtype)
    found = float(received) if dtype is None else jnp.asarray(received, dtype)
    if concrete(found):
        value = float(found)
        if not (value >= least and value > above and (below is None or value < below)):
            raise ValueError(f"{what} must be {allowed}; received {value:g}")
    return found


def as_array(what: str, received: Any, dtype: Any = None, shape: str = "an array of numbers") -> Array:
    """Real numbers as an array, of `dtype` if one is given; ValueError on anything else, on NaN and on
    infinity. `shape` says in words what is allowed."""
    if not kind_of(received)[0]:
        given = getattr(received, "dtype", None)
        given = type(received).__name__ + (f" of {given}" if given is not None else "")
        raise ValueError(f"{what} must be {shape}; received {given}")
    found = jnp.asarray(received, dtype)
    check_finite(what, found)
    return found


def check_finite(what: str, x: Any) -> None:
    """Raise ValueError where an array whose values are known holds NaN or infinity."""
    if concrete(x) and not np.isfinite(np.asarray(x)).all():
        raise ValueError(f"{what} holds NaN or infinity; allowed: finite numbers")


def kind_of(received: Any) -> tuple[bool, tuple[int, ...]]:
    """Whether `received` is made of real numbers, a lone boolean aside, and its shape."""
    if isinstance(received, bool | np.bool_):
        return False, ()
    if not hasattr(received, "dtype"):
        try:
            leaves = jax.tree.leaves(received, is_leaf=lambda x: x is None)
            received = jnp.asarray(received) if any(map(_traced, leaves)) else np.asarray(received)
        except (TypeError, ValueError):
            return False, ()
    real = (jnp.integer, jnp.floating, jnp.bool_)
    return any(jnp.issubdtype(received.dtype, kind) for kind in real), np.shape(received)


def _traced(x: Any) -> bool:
    return isinstance(x, jax.core.Tracer)


def check_flag(received: Any) -> None:
    """Raise ValueError unless `received` names a kind of backward weights."""
    check_choice("backward_weights", received, BACKWARD_WEIGHTS)


def check_record(record: Any) -> tuple[Any, ...]:
    """The names to record, each known, in one order so that equal requests share one compilation."""
    if not isinstance(record, str | tuple | list | set | frozenset):
        raise ValueError(f"record must be a list of {', '.join(RECORDS)}; received {record!r}")
    names = (record,) if isinstance(record, str) else tuple(record)
    for name in names:
        check_choice("record", name, RECORDS)
    return tuple(sorted(set(names)))


def _is_key(key: Any) -> bool:
    dtype = getattr(key, "dtype", None)
    return dtype is not None and bool(
        jnp.issubdtype(dtype, jax.dtypes.prng_key) or (dtype == np.uint32 and jnp.shape(key)[-1:] == (2,))
    )


def check_key(key: Any, *, many: bool = False) -> Array:
    """`key` as a typed key, or with `many` an array of them; ValueError when neither a key nor noise was
    given or there are more than one, TypeError for anything but a key."""
    if key is None:
        raise ValueError("give key= (a jax.random key), or noise= (from sample_noise) where that is taken")
    if many and isinstance(key, list | tuple) and key and all(map(_is_key, key)):
        key = jnp.stack(key)
    dtype = getattr(key, "dtype", None)
    if not _is_key(key):
        raise TypeError(f"key must be a jax.random key, such as jax.random.key(0); received {key!r}")
    found: Any = key if jnp.issubdtype(dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)
    if found.ndim > many:
        allowed = "keys must be one key or a list of them" if many else "key must be one key"
        raise ValueError(f"{allowed}; received an array of keys of shape {found.shape}: vmap over it")
    return found
