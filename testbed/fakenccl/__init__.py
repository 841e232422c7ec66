"""
A libnccl.so.2 in C over the fake driver (`fakecuda`): what it is faithful in is said in `nccl.c`.

Called by tests of jobs with several ranks. `build` compiles it in a second.
"""

from pathlib import Path

from testbed import fakecuda
from testbed.assets import native

LIBRARY = "libnccl.so.2"
_SOURCE = Path(__file__).with_name("nccl.c")


def build() -> Path:
    """The folder with the library, for LD_LIBRARY_PATH. Raises BuildFailed."""
    driver = fakecuda.build() / fakecuda.LIBRARY
    sources = [_SOURCE, Path(fakecuda.__file__).with_name("fake.h")]
    flags = (*fakecuda.FLAGS, f"-Wl,-soname,{LIBRARY}", str(driver))
    return native.compiled(LIBRARY, sources, flags).parent
