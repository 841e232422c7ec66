# METADATA
# title: Tiering
# description: |
#   May a holder leave its GPU though nobody takes its place? It stays unless everything that speaks
#   for its going can be read: who has a request, who cannot tell whether it works, who is pinned,
#   stays. When somebody else wants the GPU, kyb.preemption decides. About a parked workload
#   kyb.tiering.parked has the word.
# custom:
#   reasons:
#     Pinned: its pod asks that it is never parked
#     WantedActive: somebody asked that it stays active
#     RunningRequest: it has a request that it has not answered
#     Contested: holders of its class leave only when somebody else wants the GPU
#     NotAsked: its pod does not say when it counts as idle
#     MinRuntime: it is within its minimum runtime
#     IdleUnknown: nobody can tell whether it works
#     NotIdleYet: it had work lately
#     NoRoom: the RAM pool has no room for its contents
#     Idle: it had no work for long enough
#     NoNvmeRoom: it is parked, and NVMe has no room for its contents
#     RoomNeeded: somebody is to be parked, and the RAM pool is full
#     Waits: it is parked in RAM, and waits for its turn
#     RamIsFree: it is parked in RAM, which nobody else needs
#     ParkedLately: it was parked in RAM a moment ago
#     ParkedLong: it was parked in RAM for long, and RAM is scarce
#     NvmeNeeded: it is on NVMe, which is full, and others have to leave RAM for somebody to be parked
#     LongOnNvme: it was parked for long, and NVMe is scarce
#     NoRamRoom: it is on NVMe, and the RAM pool has no room for it beside those to be parked for it
#     NoRoomAbove: it is in object storage, and neither RAM nor NVMe has room for it
#     Next: it is on NVMe or in object storage, and one of the next in line
#     Expected: it is on NVMe or in object storage, and asked for about this often
#     NotExpected: it is on NVMe or in object storage, and nobody asks for it
# schemas:
#   - input: schema.tiering
#   - data.kyb.settings.tiering: schema.settings.tiering
package kyb.tiering

import data.kyb.settings
import data.kyb.terms
import data.kyb.tiering.parked

# METADATA
# title: Verdict
# description: The entry point
# entrypoint: true
verdict := parked.verdict if {
	input.parked
} else := {"tier": _tier, "reason": _reason, "after_seconds": _after_seconds}

_tier := "ram" if {
	_reason == "Idle"
} else := "vram"

_reason := "Pinned" if {
	not _unpinned
} else := "WantedActive" if {
	not _left_to_policy
} else := "RunningRequest" if {
	input.workload.in_flight > 0
} else := "Contested" if {
	not _may_leave_unasked
} else := "NotAsked" if {
	_park_idle == "asked"
	not _says_when
} else := "MinRuntime" if {
	not _ran_enough
} else := "IdleUnknown" if {
	not _idle_known
} else := "NotIdleYet" if {
	not _idle_enough
} else := "NoRoom" if {
	not _room
} else := "Idle"

# Rules of their own: `not x <= y` does not hold where x is missing.
_unpinned if input.workload.pinned == false

_left_to_policy if input.workload.desired in {"Auto", "Parked"}

_may_leave_unasked if _park_idle in {"always", "asked"}

_says_when if terms.duration(input.workload.idle_after_seconds)

_ran_enough if _min_runtime_left <= 0

_idle_known if terms.duration(input.workload.idle_seconds)

_idle_enough if _idle_left <= 0

_room if {
	is_number(input.workload.vram)
	input.workload.vram <= input.ram_free
}

_park_idle := settings.tiering.park_idle[input.workload.class]

_idle_left := terms.idle_after(input.workload, input.calendar) - input.workload.idle_seconds

_min_runtime_left := terms.min_runtime(input.workload, input.calendar) - input.workload.running_seconds if {
	terms.duration(input.workload.running_seconds)
}

# When time alone may change the answer; null when only people or new facts can.
_after_seconds := _idle_left if {
	_reason == "NotIdleYet"
} else := _min_runtime_left if {
	_reason == "MinRuntime"
} else := null
