"""
The figures of `benchmarks.parking` that keep their names from run to run, as far as measured.

Pure. What they are measured against stands in docs/explanation/performance.md.
"""

from collections.abc import Mapping
from typing import Any

Found = dict[str, Any]


def ratios(results: Mapping[str, Any]) -> dict[str, float]:
    """By their names; `results` are the benchmark's."""
    found: dict[str, float] = {}
    for name, rows in results.items():
        kind, _, gib = name.rpartition("_")
        if kind == "driver" and "failed" not in rows.get("all changed", rows):
            found |= _of_one_size(gib, rows)
            driver, park = results.get(f"by_driver_{gib}", {}), rows["all changed"]
            for way in ("park", "resume"):
                if way in driver:
                    found[f"driver_over_{way}_{gib}"] = driver[way] / park[way]
        if kind == "compressed" and "resume_of_limit" in rows:
            found[f"resume_compressed_of_limit_{gib}"] = rows["resume_of_limit"]
            found[f"ram_compressed_{gib}"] = rows["of_the_ram"]
        if kind == "turns" and "switch" in rows:
            found[f"switch_of_copy_{gib}"] = rows["switch"] / rows["resume"]
        if kind == "beside" and "pressing" in rows:
            found["token_step_while_pressing"] = rows["pressing"] / rows["alone"]
        if kind == "image" and "dead_to_running" in rows:
            found[f"dead_to_running_{gib}"] = rows["dead_to_running"]
    return found


def _of_one_size(gib: str, rows: Mapping[str, Found]) -> dict[str, float]:
    full, deep = rows["all changed"], rows["deep"]
    found = {f"{way}_{gib}": full[way] for way in ("park_of_limit", "resume_of_limit")}
    for name, row in (("park_unchanged", "unchanged"), ("park_some_changed", "5 % changed")):
        if "park" in rows[row]:
            found[f"{name}_{gib}"] = rows[row]["park"]
    if "park" in deep:
        found[f"deep_extra_{gib}"] = max(deep[way] - full[way] for way in ("park", "resume"))
    return found
