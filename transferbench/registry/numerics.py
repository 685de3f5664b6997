"""Process-wide numeric state, read, compared and restored: settings of numpy and torch, generators.

Read around every call of a plugin, so reading is cheap. torch is looked up, never imported.
"""

from __future__ import annotations

import ctypes
import decimal
import gc
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np

__all__ = [
    "Setting",
    "State",
    "complete",
    "generators",
    "imported",
    "seeded_generators",
    "settings",
]


class State(Protocol):
    """A piece of the state of a process, compared by the value that ``read`` gives.

    ``settle`` sets the value that it had before and returns a sentence on the change, or "" where
    that is harmless.
    """

    @property
    def name(self) -> str: ...
    def read(self) -> Any: ...
    def settle(self, before: Any) -> str: ...


class Setting(NamedTuple):
    """A state whose every change counts, with what reads and what sets it."""

    name: str
    reader: Callable[[], Any]
    writer: Callable[[Any], object]

    def read(self) -> Any:
        """The value, or None where it cannot be read."""
        try:
            return self.reader()
        except (OSError, RuntimeError):  # a folder that is gone; two ways to set tf32, mixed
            return None

    def settle(self, before: Any) -> str:
        """Set it to ``before``; returns both values."""
        after = self.read()
        with suppress(OSError, ValueError, RuntimeError):  # what cannot be put back is told too
            self.writer(before)
        return f"{self.name} went from {before} to {after}"


_COMPLETE: set[str] = set()


def complete(name: str) -> None:
    """Say that the import of a module has come to its end, before Python's own list does."""
    _COMPLETE.add(name)


def imported(name: str) -> ModuleType | None:
    """The module of that name, once its import has come to its end."""
    module = sys.modules.get(name)
    unfinished = getattr(getattr(module, "__spec__", None), "_initializing", False)
    return module if name in _COMPLETE or not unfinished else None


def settings() -> tuple[State, ...]:
    """The settings of numpy, and of torch where it is imported."""
    torch = imported("torch")
    return _NUMPY if torch is None else (*_NUMPY, *_torch_settings(torch))


def _rounding() -> Iterator[Setting]:
    """The processor's, which the mathematical library of C reads and sets."""
    with suppress(OSError, TypeError, AttributeError):  # systems without one
        library = ctypes.PyDLL(None)
        yield Setting("the processor's rounding (fegetround)", library.fegetround,
                      library.fesetround)  # fmt: skip


_DECIMAL = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")


def _decimal_context() -> dict[str, Any]:
    context = decimal.getcontext()
    return {name: getattr(context, name) for name in _DECIMAL}


def _set_decimal_context(values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(decimal.getcontext(), name, value)


_NUMPY: tuple[State, ...] = (
    Setting("numpy.geterr()", np.geterr, lambda value: np.seterr(**value)),
    Setting("decimal.getcontext()", _decimal_context, _set_decimal_context),
    *_rounding(),
)


@cache
def _torch_settings(torch: Any) -> tuple[State, ...]:
    """All that this version of torch has; first what would see the others being read."""
    return (
        _default_device(torch), *_modes_of_operations(torch), *_hooks(), _Operators(torch),
        *_pairs_of_functions(torch), *_flags(torch), *_precisions(torch),
    )  # fmt: skip


_READERS_AND_WRITERS = {
    "is_grad_enabled": "set_grad_enabled",
    "get_default_dtype": "set_default_dtype",
    "get_num_threads": "set_num_threads",
    "get_deterministic_debug_mode": "set_deterministic_debug_mode",
    "get_float32_matmul_precision": "set_float32_matmul_precision",
    "is_anomaly_enabled": "autograd.set_detect_anomaly",
    "is_autocast_cache_enabled": "set_autocast_cache_enabled",
    "backends.cuda.flash_sdp_enabled": "backends.cuda.enable_flash_sdp",
    "backends.cuda.math_sdp_enabled": "backends.cuda.enable_math_sdp",
    "backends.cuda.mem_efficient_sdp_enabled": "backends.cuda.enable_mem_efficient_sdp",
    "backends.cuda.cudnn_sdp_enabled": "backends.cuda.enable_cudnn_sdp",
    "backends.mha.get_fastpath_enabled": "backends.mha.set_fastpath_enabled",
    "_C._get_nnpack_enabled": "_C._set_nnpack_enabled",
    "serialization.get_default_load_endianness": "serialization.set_default_load_endianness",
    "autograd.is_multithreading_enabled": "autograd.set_multithreading_enabled",
    **{
        f"__future__.get_{name}_module_params_on_conversion":
            f"__future__.set_{name}_module_params_on_conversion"
        for name in ("overwrite", "swap")
    },
}  # fmt: skip


def _pairs_of_functions(torch: Any) -> Iterator[Setting]:
    """Settings that a function reads and another sets."""
    for reader, writer in _READERS_AND_WRITERS.items():
        read, write = _attribute(torch, reader), _attribute(torch, writer)
        if read and write:
            yield Setting(f"torch.{reader}()", read, write)
    for device in ("cpu", "cuda"):
        for reader, writer in (
            ("is_autocast_enabled", "set_autocast_enabled"),
            ("get_autocast_dtype", "set_autocast_dtype"),
        ):
            read, write = getattr(torch, reader), getattr(torch, writer)
            yield Setting(f"torch.{reader}({device!r})", partial(read, device),
                          partial(write, device))  # fmt: skip
    yield Setting("torch's depth of nested autocast", partial(_autocast_depth, torch),
                  partial(_set_autocast_depth, torch))  # fmt: skip
    core = torch._C._autograd  # noqa: SLF001  # no public reader
    read = getattr(core, "_top_saved_tensors_default_hooks", None)
    if read is not None:
        yield Setting("torch.autograd.graph.saved_tensors_hooks", partial(read, False),
                      partial(_leave_hooks, core))  # fmt: skip
    yield Setting("flushing of denormal numbers", _flushes_denormals, torch.set_flush_denormal)
    yield Setting("torch.is_inference_mode_enabled()", torch.is_inference_mode_enabled,
                  partial(_set_inference_mode, torch))  # fmt: skip


def _attribute(owner: Any, path: str) -> Any:
    for name in path.split("."):
        owner = getattr(owner, name, None)
    return owner


def _flushes_denormals() -> bool:
    # torch sets it and cannot read it; the flag is the processor's, so any arithmetic shows it.
    return sys.float_info.min / 2 == 0.0


def _autocast_depth(torch: Any) -> int:
    # Only the functions that change it tell it.
    torch.autocast_increment_nesting()
    return torch.autocast_decrement_nesting()  # type: ignore[no-any-return]


def _set_autocast_depth(torch: Any, value: int) -> None:
    # Above 0, weights cast once are used for ever: training would not move them.
    while _autocast_depth(torch) > value:
        torch.autocast_decrement_nesting()
    while _autocast_depth(torch) < value:
        torch.autocast_increment_nesting()
    torch.clear_autocast_cache()


def _leave_hooks(core: Any, before: Any) -> None:
    while (top := core._top_saved_tensors_default_hooks(False)) and top != before:  # noqa: SLF001  # as above
        core._pop_saved_tensors_default_hooks()  # noqa: SLF001  # as above


def _set_inference_mode(torch: Any, value: Any) -> None:
    # The mode lasts as long as the object.
    _MODES_ENTERED.append(torch._C._InferenceMode(value))  # noqa: SLF001  # the public one is a with block


_MODES_ENTERED: list[object] = []


def _default_device(torch: Any) -> Setting:
    def read() -> Any:
        # The public reader imports modules at each call.
        context = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)  # noqa: SLF001
        return getattr(context, "device", None)

    return Setting("torch.get_default_device()", read, torch.set_default_device)


_FLAGS = {
    "backends.cudnn": ("enabled", "benchmark", "deterministic", "allow_tf32"),
    "backends.cuda.matmul": (
        "allow_tf32", "allow_fp16_reduced_precision_reduction",
        "allow_bf16_reduced_precision_reduction",
    ),
    "backends.mkldnn": ("enabled", "deterministic"),
    "backends.opt_einsum": ("enabled", "strategy"),
    "backends.quantized": ("engine",),
    "utils.deterministic": ("fill_uninitialized_memory",),
}  # fmt: skip


def _flags(torch: Any) -> Iterator[Setting]:
    for path, names in _FLAGS.items():
        owner = _attribute(torch, path)
        for name in names:
            if hasattr(owner, name):
                yield Setting(f"torch.{path}.{name}", partial(getattr, owner, name),
                              partial(setattr, owner, name))  # fmt: skip


def _precisions(torch: Any) -> Iterator[Setting]:
    """Of torch 2.9 and later: precisions that the older flags do not reach."""
    read = getattr(torch._C, "_get_fp32_precision_getter", None)  # noqa: SLF001  # no public one by name
    write = getattr(torch._C, "_set_fp32_precision_setter", None)  # noqa: SLF001  # as above
    if read is None or write is None:
        return
    pairs = (("generic", "all"), ("cuda", "all"), ("mkldnn", "all"), ("mkldnn", "conv"),
             ("mkldnn", "rnn"))  # fmt: skip
    for backend, operation in pairs:
        yield Setting(f"torch's fp32_precision of {backend}, {operation}",
                      partial(read, backend, operation),
                      partial(write, backend, operation))  # fmt: skip


# --- what sees every module, optimizer or operation -------------------------------------------


class _Operators:
    """Kernels of torch's own operators (``aten``) that Python code has registered.

    Those for the device ``meta``, which compute no numbers, are torch's affair.
    """

    name = "operators of torch"

    def __init__(self, torch: Any) -> None:
        self._library = torch.library
        self._kernels: frozenset[str] = frozenset()

    def read(self) -> tuple[frozenset[str]]:
        registered = self._library._impls  # noqa: SLF001  # no public reader
        if len(registered) != len(self._kernels):
            self._kernels = frozenset(registered)
        return (self._kernels,)  # compared by identity first

    def settle(self, before: tuple[frozenset[str]]) -> str:
        new = {name for name in self.read()[0] - before[0]
               if name.startswith("aten/") and not name.endswith("/Meta")}  # fmt: skip
        for library in gc.get_objects() if new else ():
            if type(library) is self._library.Library and not new.isdisjoint(library._op_impls):  # noqa: SLF001  # as above
                library._destroy()  # noqa: SLF001  # as above
        return f"operators of torch were replaced: {', '.join(sorted(new))}" if new else ""


class _Hooks(NamedTuple):
    name: str
    hooks: dict[Any, Any]

    def read(self) -> dict[Any, Any]:
        return dict(self.hooks)

    def settle(self, before: dict[Any, Any]) -> str:
        self.hooks.clear()
        self.hooks.update(before)
        return f"torch's global {self.name.replace('_', ' ')} were changed"


class _Modes(NamedTuple):
    name: str
    length: Callable[[], int]
    current: Callable[[], Any]

    def read(self) -> int:
        return self.length()

    def settle(self, before: int) -> str:
        while self.length() > before:
            self.current().__exit__(None, None, None)
        return f"a {self.name} mode was entered and not left"


def _hooks() -> Iterator[_Hooks]:
    for module in ("torch.nn.modules.module", "torch.optim.optimizer"):
        for name, hooks in vars(sys.modules[module]).items():
            if name.startswith("_global_") and isinstance(hooks, dict):
                yield _Hooks(name.removeprefix("_global_"), hooks)


def _modes_of_operations(torch: Any) -> Iterator[_Modes]:
    core = torch._C  # noqa: SLF001  # the stacks have no public reader
    current = torch.overrides._get_current_function_mode  # noqa: SLF001  # as above
    yield _Modes("torch function", core._len_torch_function_stack, current)  # noqa: SLF001  # as above
    current = torch.utils._python_dispatch._get_current_dispatch_mode  # noqa: SLF001  # as above
    yield _Modes("torch dispatch", core._len_torch_dispatch_stack, current)  # noqa: SLF001  # as above


# --- global generators ------------------------------------------------------------------------


class GlobalGenerator(State, Protocol):
    """A global generator of random numbers; ``value`` is its state, which no text can show."""

    def value(self) -> Any: ...


class _Generator(NamedTuple):
    name: str
    value: Callable[[], Any]
    writer: Callable[[Any], object]

    def read(self) -> Any:
        return self.value()

    def settle(self, before: Any) -> str:
        self.writer(before)
        return f"the global generator of {self.name} was moved"


def generators() -> tuple[GlobalGenerator, ...]:
    """The global generators of Python and numpy, and of torch where it is imported."""
    torch = imported("torch")
    if torch is None:
        return _GENERATORS
    return (*_torch_generators(torch, cuda=torch.cuda.is_initialized()), *_GENERATORS)


@contextmanager
def seeded_generators(seed: int) -> Iterator[None]:
    """Seed the global generators inside the block (0 <= seed < 2**32), and put them back after."""
    before = [(state, state.read()) for state in generators()]
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # the global one
    if torch := imported("torch"):
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)
    try:
        yield
    finally:
        for state, value in before:
            state.settle(value)


_MT19937_WORDS = 624
_MT19937_BYTES = (_MT19937_WORDS + 1) * 4
"""numpy's mt19937.h: 624 words and the position in them."""

_MOST_BLOCKS = 1000
"""Of 624 words: more than libraries draw as they are imported."""


def _numpy_state() -> tuple[Any, Any]:
    """The global bit generator and its memory, which is faster to read than numpy's own state."""
    bits = np.random.get_bit_generator()  # type: ignore[attr-defined]  # its stub lacks it
    if isinstance(bits, np.random.MT19937):
        return bits, ctypes.string_at(bits.ctypes.state_address, _MT19937_BYTES)
    return bits, str(bits.state)


def _set_numpy_state(before: tuple[Any, Any]) -> None:
    bits, memory = before
    np.random.set_bit_generator(bits)  # type: ignore[attr-defined]  # its stub lacks it
    if isinstance(memory, bytes):
        ctypes.memmove(bits.ctypes.state_address, memory, len(memory))
        # Without the second normal number of a pair that was drawn meanwhile.
        state: Any = np.random.get_state()  # noqa: NPY002  # the global one
        np.random.set_state(state[:3])  # noqa: NPY002  # as above


def _is_drawn(before: Any, after: Any) -> bool:
    """Whether draws lead from one state of ``random`` to another, as no seed does."""
    generator = random.Random()  # noqa: S311  # its state is what is looked at
    generator.setstate(before)
    for _ in range(_MOST_BLOCKS):
        if generator.getstate()[1][:-1] == after[1][:-1]:  # the position apart
            return True
        generator.getrandbits(_MT19937_WORDS * 32)
    return False


class _PythonGenerator:
    """The one of ``random``, from which libraries may draw as they are imported."""

    name = "random"

    def value(self) -> Any:
        return random.getstate()

    def read(self) -> tuple[int, Any]:
        return len(sys.modules), random.getstate()

    def settle(self, before: tuple[int, Any]) -> str:
        modules, state = before
        after = random.getstate()
        random.setstate(state)
        new = list(sys.modules)[modules:]
        imports = [name for name in new if not name.startswith(PLUGIN_FILE)]
        if after == state or (imports and _is_drawn(state, after)):
            return ""
        return "the global generator of random was moved"


PLUGIN_FILE = "_transferbench_file_"
"""Begins the name of the module of a plugin file."""

_GENERATORS: tuple[GlobalGenerator, ...] = (
    _Generator("numpy.random", _numpy_state, _set_numpy_state),
    _PythonGenerator(),
)


@cache
def _torch_generators(torch: Any, *, cuda: bool) -> tuple[GlobalGenerator, ...]:
    def tensor(state: bytes) -> Any:
        return torch.frombuffer(bytearray(state), dtype=torch.uint8)

    cpu = _Generator(
        "torch",
        lambda: torch.get_rng_state().numpy().tobytes(),
        lambda state: torch.set_rng_state(tensor(state)),
    )
    devices = _Generator(
        "torch.cuda",
        lambda: [state.numpy().tobytes() for state in torch.cuda.get_rng_state_all()],
        lambda states: torch.cuda.set_rng_state_all(list(map(tensor, states))),
    )
    return (cpu, devices) if cuda else (cpu,)
