"""
How a node's GPUs stand to one another: ranks of nearness, and the names of groups.

Ranks are worded as `nvidia-smi topo -m` does. Rule: more is nearer. Any NVLink beats any path over
PCIe, and more NVLinks beat fewer.
"""

from collections.abc import Iterable

from kybernate.model.ids import GroupName

SYS, NODE, PHB, PXB, PIX = range(5)  # across sockets ... one PCIe switch between them
_NVLINK = 100  # NV4 is 104; far above the PCIe ranks, so that both can grow
_TWO_DIGITS = 10  # from here on indices need a separator
_WORDS = ("SYS", "NODE", "PHB", "PXB", "PIX")


def nvlink(count: int) -> int:
    """The rank of `count` bonded NVLinks; at least one."""
    return _NVLINK + count


def is_nvlink(rank: int) -> bool:
    """Whether this rank means NVLinks."""
    return rank > _NVLINK


def link_word(rank: int) -> str:
    """`NV4`, `PIX`, ... `SYS`."""
    if is_nvlink(rank):
        return f"NV{rank - _NVLINK}"
    return _WORDS[min(rank, PIX)]


def parse_link(text: str) -> int:
    """The rank of a word. Raises ValueError with what is accepted."""
    if text in _WORDS:
        return _WORDS.index(text)
    count = text.removeprefix("NV")
    if count != text and count.isdecimal() and int(count) > 0:
        return nvlink(int(count))
    raise ValueError(f"NV1, NV2, ... or one of {', '.join(reversed(_WORDS))}")


def group_name(gpus: Iterable[int]) -> GroupName:
    """`G0`, `G01`, `G0123`; where an index has two digits `G-8-10` and `G-12`.

    No two sets have one name: G12 is the pair 1 and 2, and never the card 12.
    """
    ordered = sorted(gpus)
    before = "-" if ordered and ordered[-1] >= _TWO_DIGITS else ""
    return GroupName("G" + "".join(f"{before}{index}" for index in ordered))
