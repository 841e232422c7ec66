"""
A libcuda.so.1 in C for machines without a GPU: what it is faithful in is said in `fake.h`.

Called by tests of the guest library and of the GPU worker. `build` compiles it in a second.
"""

from pathlib import Path

from testbed.assets import native

LIBRARY = "libcuda.so.1"
UUID = "GPU-face0000-1111-2222-3333-444444444444"
_FLAGS = (
    *("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"),
    *("-O2", "-fPIC", "-shared", "-pthread", "-fvisibility=hidden", f"-Wl,-soname,{LIBRARY}"),
)


def build() -> Path:
    """The folder with the library, for LD_LIBRARY_PATH. Raises BuildFailed."""
    sources = sorted(Path(__file__).parent.glob("*.[ch]"))
    return native.compiled(LIBRARY, sources, _FLAGS).parent
