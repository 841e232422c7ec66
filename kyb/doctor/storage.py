"""The check of the object store. Pure. Called by: `checks`."""

from kyb.doctor import supported
from kyb.doctor.facts import NodeFacts, ObjectStore
from kyb.doctor.findings import Finding, Grade

_WANTED = "written, read back and deleted from; keys that wrap"
_GUIDE = "docs/how-to/give-agents-a-store.md"


def store(facts: NodeFacts) -> Finding:
    """Whether agents can use it from here."""
    one = facts.store
    if one is None:
        return Finding(
            check="object store", grade=Grade.WARNING, found="none given", wanted=_WANTED,
            mend=f"--store, --wrapping; without one no checkpoint outlives its node: {_GUIDE}",
        )  # fmt: skip
    faults = [fault for fault in (one.problem, one.keys_problem) if fault]
    return Finding(
        check="object store",
        grade=Grade.FAULT if faults else Grade.OK,
        found=f"{one.place}: {'; '.join(faults) or _well(one)}",
        wanted=_WANTED,
        mend=f"{one.mend or 'name the folder with wrapping.key: --wrapping'}: {_GUIDE}"
        if faults
        else "",
    )


def _well(one: ObjectStore) -> str:
    keys = "1 wrapping key" if one.keys == 1 else f"{one.keys} wrapping keys"
    if one.rates is None:
        return f"{keys}; not measured"
    into, out_of = (
        f"{rate / supported.MB:.0f} MB/s" for rate in (one.rates.into, one.rates.out_of)
    )
    return f"{into} put, {out_of} get; {keys}"
