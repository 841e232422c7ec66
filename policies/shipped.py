"""
The policies as they are shipped, as texts by path.

Read by: the testbed, which makes the ConfigMap from them, tests and `kyb`. Processes never read
this folder: OPA gets its policies as a bundle, from the controller, from the ConfigMap.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
_SHIPPED = ("kyb/**/*.rego", "data/*.json", "schemas/**/*.json")


def files(folder: Path = FOLDER) -> dict[str, str]:
    """Path below `folder` to text: Rego without its tests, data, schemas. UTF-8."""
    found = sorted(path for pattern in _SHIPPED for path in folder.glob(pattern))
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in found
        if not path.name.endswith("_test.rego")
    }
