"""Preloaded everywhere: it changes nothing where there is no GPU, no agent, or no use for it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

MIB = 2**20
_OLDEST = (2, 17)  # glibc of 2012
_NEXT = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
int puts(const char *text) {
    int (*next)(const char *) = (int (*)(const char *))dlsym(RTLD_NEXT, "puts");
    return next == puts ? -1 : next(text);
}
"""
_CALLER = '#include <stdio.h>\nint main(void) { return puts("once") < 0; }\n'
_LINKED = """
#include <stdint.h>
#include <stdio.h>
int cuInit(unsigned);
int cuDevicePrimaryCtxRetain(void **, int);
int cuCtxSetCurrent(void *);
int cuMemAlloc_v2(uint64_t *, size_t);
int cuMemGetInfo_v2(size_t *, size_t *);
int main(void) {
    void *context;
    uint64_t at;
    size_t before, after, all;
    int wrong = cuInit(0) | cuDevicePrimaryCtxRetain(&context, 0) | cuCtxSetCurrent(context);
    wrong |= cuMemGetInfo_v2(&before, &all) | cuMemAlloc_v2(&at, 3 << 20);
    wrong |= cuMemGetInfo_v2(&after, &all);
    printf("%d %zu\\n", wrong, (before - after) >> 20);
    return 0;
}
"""


def run(argv, *, library, **environment):
    """A program with the library preloaded; both outputs."""
    done = subprocess.run(
        argv,
        env={**os.environ, "LD_PRELOAD": str(library), **environment},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout, done.stderr


def compiled(folder, name, text, *flags):
    source = folder / f"{name}.c"
    source.write_text(text)
    subprocess.run(["cc", str(source), "-o", str(folder / name), *flags], check=True)
    return folder / name


def test_it_needs_libc_alone_and_nothing_of_it_that_is_young(libraries):
    shown = subprocess.run(
        ["objdump", "-p", "-T", str(libraries[0])], capture_output=True, text=True, check=True
    ).stdout
    assert re.findall(r"NEEDED\s+(\S+)", shown) == ["libc.so.6"]
    versions = {tuple(map(int, v.split("."))) for v in re.findall(r"\(GLIBC_([\d.]+)\)", shown)}
    assert max(versions) <= (*_OLDEST, 0)


_CLOCK = {"pthread_cond_clockwait", "pthread_mutex_clocklock"}  # and two of libstdc++


def test_it_offers_what_it_stands_in_for_alone(libraries):
    shown = subprocess.run(
        ["nm", "-D", "--defined-only", str(libraries[0])],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = {line.split()[-1] for line in shown.splitlines()}
    others = {name for name in names if not re.fullmatch(r"(cu[A-Z]|nccl[A-Z]|_ZN?St)\w+", name)}
    assert others == {"dlsym", "dlvsym"} | _CLOCK


@pytest.mark.parametrize("asked", [{}, {"KYB_GUEST_SOCKET": "/nowhere/guest.sock"}])
def test_a_program_without_a_gpu_runs_as_without_it(libraries, asked):
    script = "import ctypes, ssl, sqlite3; print(ctypes.CDLL(None).getpid() > 0)"
    assert run([sys.executable, "-c", script], library=libraries[0], **asked) == ("True\n", "")


def test_what_comes_next_is_what_comes_after_the_caller(libraries, tmp_path):
    between = compiled(tmp_path, "between.so", _NEXT, "-shared", "-fPIC")
    caller = compiled(tmp_path, "caller", _CALLER)
    for order in (f"{between}:{libraries[0]}", f"{libraries[0]}:{between}"):
        assert run([str(caller)], library=order) == ("once\n", "")


@pytest.mark.parametrize("asked", [{}, {"KYB_GUEST_SOCKET": "/nowhere/guest.sock"}])
def test_there_is_no_nccl_where_there_was_none(libraries, asked):
    script = "import ctypes; print(hasattr(ctypes.CDLL(None), 'ncclAllReduce'))"
    assert run([sys.executable, "-c", script], library=libraries[0], **asked) == ("False\n", "")


def test_a_lookup_that_would_fail_fails(libraries):
    script = (
        "import ctypes\n"
        "libm = ctypes.CDLL('libm.so.6')\n"
        "print(hasattr(libm, 'cuNever'), hasattr(libm, 'cos'))"
    )
    out, _ = run([sys.executable, "-c", script], library=libraries[0], KYB_GUEST_SOCKET="/nowhere")
    assert out == "False True\n"


@pytest.mark.parametrize(
    ("asked", "mib"),
    [
        pytest.param({}, "0 3", id="nobody-asked"),
        pytest.param({"KYB_GUEST_SOCKET": "/nowhere"}, "0 4", id="asked"),
    ],
)
def test_a_program_linked_to_the_driver_is_a_guest_only_where_it_is_asked_to_be(
    libraries, tmp_path, asked, mib
):
    library, driver = libraries
    flags = (str(driver / "libcuda.so.1"), f"-Wl,-rpath,{driver}")
    program = compiled(tmp_path, "linked", _LINKED, *flags)
    assert run([str(program)], library=library, **asked) == (f"{mib}\n", "")


@pytest.mark.parametrize("name", ["cuMemAlloc_v2", "cuMemcpyHtoD_v2", "cuLaunchKernel"])
def test_the_library_stands_in_however_a_function_is_looked_up(node, name):
    with node.program() as told:
        assert told.symbol(name) == Path(node.library).name
        assert told.proc_address(name.removesuffix("_v2"), 13000) == Path(node.library).name


def test_functions_that_are_none_of_its_business_stay_the_driver_s(node):
    with node.program() as told:
        assert told.symbol("cuDeviceGetCount") == "libcuda.so.1"
        assert told.proc_address("cuDeviceGetName", 13000) == "libcuda.so.1"
