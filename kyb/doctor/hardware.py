"""
Checks of cards, memory, bus and disk. Pure.

Called by: `checks`.
Rule: sizes are compared with the cards'; without cards, a check says so.
"""

from kyb.doctor import supported
from kyb.doctor.facts import NodeFacts, Unknown
from kyb.doctor.findings import Finding, Grade
from kybernate.api.quantity import readable_bytes


def driver(facts: NodeFacts) -> Finding:
    """NVML answers, and the driver can checkpoint processes."""
    wanted = f"{supported.BEST_DRIVER} or newer (tried: {supported.DRIVER.tried})"
    gpus = facts.gpus
    if isinstance(gpus, Unknown):
        return Finding(
            check="driver", grade=Grade.FAULT, found=f"no GPU: {gpus.why}", wanted=wanted,
            mend="install the NVIDIA driver; nvidia-smi has to list the cards",
        )  # fmt: skip
    found = f"{gpus.driver}, {_counted(gpus.products)}"
    if supported.at_least(gpus.driver, supported.BEST_DRIVER):
        return Finding(check="driver", grade=Grade.OK, found=found, wanted=wanted)
    old = not supported.at_least(gpus.driver, supported.DRIVER.oldest)
    return Finding(
        check="driver", grade=Grade.FAULT if old else Grade.WARNING, found=found, wanted=wanted,
        mend="a newer driver" + ("" if old else ": this one restores onto the same card only"),
    )  # fmt: skip


def memory(facts: NodeFacts) -> Finding:
    """RAM for what is parked, and for what parks."""
    found = readable_bytes(facts.memory)
    if isinstance(facts.gpus, Unknown):
        return _not_asked("RAM", found, f"{supported.RAM_PER_VRAM} x VRAM")
    needed = supported.RAM_PER_VRAM * sum(facts.gpus.memory)
    enough = facts.memory >= needed
    return Finding(
        check="RAM",
        grade=Grade.OK if enough else Grade.FAULT,
        found=found,
        wanted=f"{supported.RAM_PER_VRAM} x VRAM = {readable_bytes(needed)}",
        mend="" if enough else "more RAM, or fewer managed cards on this node",
    )


def pool(facts: NodeFacts) -> Finding:
    """Parked contents are in memory, in a folder that outlives the agent."""
    wanted = "tmpfs or hugetlbfs, of the VRAM of all cards at least"
    found = facts.pool
    if isinstance(found, Unknown):
        return Finding(check="pool", grade=Grade.UNKNOWN, found=found.why, wanted=wanted)
    said = f"{found.path}: {found.kind}, {readable_bytes(found.size)}"
    if found.kind not in ("tmpfs", "hugetlbfs"):
        return Finding(
            check="pool", grade=Grade.FAULT, found=said, wanted=wanted,
            mend="mount a tmpfs there, or give the agent another --pool-dir",
        )  # fmt: skip
    if isinstance(facts.gpus, Unknown):
        return _not_asked("pool", said, wanted)
    needed = sum(facts.gpus.memory)
    enough = found.size >= needed
    size = -(-needed * 105 // 100 // supported.GIB)
    return Finding(
        check="pool",
        grade=Grade.OK if enough else Grade.FAULT,
        found=said,
        wanted=f"tmpfs or hugetlbfs, {readable_bytes(needed)} or more",
        mend=""
        if enough
        else f"mount -o remount,size={size}G {_mount_of(found.path)}; in fstab too",
    )


def transparent_huge_pages(facts: NodeFacts) -> Finding:
    """The driver's own checkpoint is half as fast again with them."""
    wanted = "always (the driver parks 3.0 GB/s instead of 2.0)"
    if isinstance(facts.huge_pages, Unknown):
        return Finding(check="THP", grade=Grade.WARNING, found=facts.huge_pages.why, wanted=wanted)
    found = facts.huge_pages.transparent
    return Finding(
        check="THP",
        grade=Grade.OK if found == "always" else Grade.WARNING,
        found=found,
        wanted=wanted,
        mend=""
        if found == "always"
        else "echo always > /sys/kernel/mm/transparent_hugepage/enabled; at boot: "
        "transparent_hugepage=always",
    )


def huge_pages(facts: NodeFacts) -> Finding:
    """What is reserved is lost for a pool in tmpfs."""
    wanted = "at most a quarter of RAM reserved: the pool cannot use it"
    if isinstance(facts.huge_pages, Unknown):
        why = facts.huge_pages.why
        return Finding(check="hugepages", grade=Grade.WARNING, found=why, wanted=wanted)
    reserved = facts.huge_pages.reserved
    much = reserved > facts.memory // 4
    return Finding(
        check="hugepages",
        grade=Grade.WARNING if much else Grade.OK,
        found=f"{readable_bytes(reserved)} reserved",
        wanted=wanted,
        mend="lower vm.nr_hugepages" if much else "",
    )


def bus(facts: NodeFacts) -> Finding:
    """Pinned copies, both ways."""
    wanted = f"{_rate(supported.BUS_RATE)} each way"
    if isinstance(facts.bus, Unknown):
        grade = Grade.WARNING if isinstance(facts.gpus, Unknown) else Grade.UNKNOWN
        return Finding(
            check="bus", grade=grade, found=f"not measured: {facts.bus.why}", wanted=wanted
        )
    slow = min(facts.bus.into, facts.bus.out_of) < supported.BUS_RATE
    return Finding(
        check="bus",
        grade=Grade.WARNING if slow else Grade.OK,
        found=f"{_rate(facts.bus.into)} in, {_rate(facts.bus.out_of)} out",
        wanted=wanted,
        mend="nvidia-smi -q -d PCIE: is the link as wide and as new as the card's?" if slow else "",
    )


def disk(facts: NodeFacts) -> Finding:
    """Where checkpoints go."""
    wanted = f"{_rate(supported.DISK_RATE)} each way"
    if isinstance(facts.disk, Unknown):
        return Finding(
            check="disk", grade=Grade.UNKNOWN, wanted=wanted,
            found=f"not measured: {facts.disk.why}", mend="name a folder with room: --disk FOLDER",
        )  # fmt: skip
    slow = min(facts.disk.into, facts.disk.out_of) < supported.DISK_RATE
    found = f"{_rate(facts.disk.into)} write, {_rate(facts.disk.out_of)} read"
    return Finding(
        check="disk",
        grade=Grade.WARNING if slow else Grade.OK,
        found=f"{facts.disk_folder}: {found}",
        wanted=wanted,
        mend="put the agent's --state-dir on NVMe" if slow else "",
    )


def _not_asked(check: str, found: str, wanted: str) -> Finding:
    """Sizes are compared with the cards'; without cards there is nothing to compare with."""
    return Finding(
        check=check, grade=Grade.WARNING, found=f"{found}; no GPU to compare with", wanted=wanted
    )


def _counted(products: tuple[str, ...]) -> str:
    kinds = dict.fromkeys(products)
    return ", ".join(f"{products.count(kind)} x {kind}" for kind in kinds) or "no card"


def _rate(rate: float) -> str:
    return f"{rate / supported.GB:.1f} GB/s"


def _mount_of(path: str) -> str:
    return "/dev/shm" if path.startswith("/dev/shm") else path  # noqa: S108 - named for people
