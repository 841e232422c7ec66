"""
The story of waking: contents of a claimed checkpoint come into the pool, the container is made from
its image, and the workload is parked; it is resumed like any other.

Called by `attempts` and `wakings`, and by recovery with what a dead agent left. Until RESTORING
nothing but the slot is there, and the runtime has no answer: it asks again. From then on the
container may come at any time; it comes stopped, so nothing of it runs before it is adopted.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from kybernate.artifacts.chunks import Bytes
from kybernate.artifacts.facts import GpuPart
from kybernate.clients.errors import Refused, Retry
from nodeagent.checkpoints import layers
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.disk.pool import Kept
from nodeagent.disk.records import Mark, Record
from nodeagent.images import ProcessImages
from nodeagent.mechanisms import BodyGone
from nodeagent.stories import seal
from nodeagent.stories.story import Story


def fill(story: Story, sealed: Sealed) -> None:
    """Its contents into the pool, in WAKING. Raises Refused, Retry, OSError."""
    parts = sealed.manifest.facts.parts
    slot = story.tools.pool.reserve(story.record.uid, sum(part.size for part in parts))
    moved = story.moving("contents", sum(part.size for part in parts))
    kept: list[Kept] = []
    with story.watch.phase("contents"):
        for part in parts:
            read = _checked(sealed, part)
            content, digest = story.tools.pool.bulk.brought(slot, part.name, read)
            moved(part.size)
            uuid = story.body.gpus[part.card]
            kept.append(
                Kept(name=part.name, uuid=uuid, size=part.size, content=content, digest=digest)
            )
        slot.seal(tuple(kept))


def prepare(
    story: Story, images: ProcessImages, sealed: Sealed, image: Path, bundle: Path
) -> Mapping[str, str]:
    """From WAKING to RESTORING, once its contents are there; what the runtime is answered. `image`
    is what was taken out of it. Again for another container is fine. Raises Refused, Retry,
    OSError: then nothing but the slot is there."""
    with story.watch.phase("prepare"):
        fields = images.restoration(image, bundle)
    state = sealed.manifest.facts.more.get(seal.GPU_STATE, "")
    story.mark(Mark.RESTORING, gpu_state=state)
    return fields


def finish(story: Story, images: ProcessImages) -> Record:
    """From RESTORING to PARKED, once its process is there. Raises Lost, BodyGone."""
    try:
        with story.watch.phase("adopt"):
            story.patiently(lambda: story.tools.mechanism.adopt(story.body, story.record.gpu_state))
            images.woken(seal.body_of(story.record))
    except BodyGone:
        raise
    except (Refused, Retry) as error:
        raise story.lost(f"its GPU state cannot be taken up: {error}") from error
    story.freeze()
    return story.mark(Mark.PARKED, gpu_state="")


def _checked(sealed: Sealed, part: GpuPart) -> Iterator[Bytes]:
    """Its bytes, each chunk checked before it is given. Raises Unusable, and what the disk says."""
    return layers.read(sealed, part) if part.layered else sealed.read(part.path)
