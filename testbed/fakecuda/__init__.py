"""
A libcuda.so.1 in C for machines without a GPU: what it is faithful in is said in `fake.h`; and a
libnvidia-ml.so.1 that shows the same card (`nvml/`).

Called by tests of the guest library, of the GPU worker, and of a node with both. `build` and
`build_nvml` compile them in a second.
"""

from pathlib import Path

from testbed.assets import native

LIBRARY = "libcuda.so.1"
UUID = "GPU-face0000-1111-2222-3333-444444444444"
NVML = "libnvidia-ml.so.1"
FLAGS = (
    *("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"),
    *("-O2", "-fPIC", "-shared", "-pthread", "-fvisibility=hidden"),
)
_HERE = Path(__file__).parent


def build() -> Path:
    """The folder with the library, for LD_LIBRARY_PATH. Raises BuildFailed."""
    sources = sorted(_HERE.glob("*.[ch]"))
    return native.compiled(LIBRARY, sources, (*FLAGS, f"-Wl,-soname,{LIBRARY}")).parent


def build_nvml() -> Path:
    """Likewise. What asks it has to see the processes of the card: a node, not a container."""
    sources = [_HERE / "nvml" / "nvml.c", _HERE / "fake.h"]
    return native.compiled(NVML, sources, (*FLAGS, f"-Wl,-soname,{NVML}")).parent
