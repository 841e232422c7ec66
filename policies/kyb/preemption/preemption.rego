# METADATA
# title: Preemption
# description: |
#   May `incoming` take the GPU from `holder`? The holder is protected unless something readable
#   says that it may go: a fact that is missing or not a number never lets it go.
# custom:
#   reasons:
#     IncomingWantedParked: somebody asked that the incoming workload stays parked
#     Pinned: somebody asked that the holder stays active
#     MinRuntime: the holder is within its minimum runtime
#     RunningRequest: the holder has a request that it has not answered, and not stayed too long
#     SwitchLimit: this GPU has switched too often in the last minute
#     Sticky: the holder is busy, within its slice, and not outranked
#     Protected: the question cannot be read
#     HolderWantedParked: somebody asked that the holder is parked
#     HigherPriority: the incoming workload outranks the holder
#     HolderIdle: the holder has had no work for long enough
#     SliceEnded: the holder has used up its slice
#     WaitedLongEnough: an equal has waited as long as collation may make it wait
# schemas:
#   - input: schema.preemption
#   - data.kyb.settings.turns: schema.settings.turns
package kyb.preemption

import data.kyb.settings
import data.kyb.terms

# METADATA
# title: Verdict
# description: The entry point
# entrypoint: true
verdict := judge(input)

default verdict := {"allow": false, "reason": "Protected", "order": 0, "retry_seconds": null}

# METADATA
# description: The verdict on one incoming workload and one holder; `kyb.timeslice` asks it too
judge(turn) := {
	"allow": reason in _grounds,
	"reason": reason,
	"order": _order(turn.holder),
	"retry_seconds": _retry_seconds(turn, reason),
} if {
	reason := _reason(turn)
}

# Reasons that let the holder go; every other one protects it.
_grounds := {"HolderWantedParked", "HigherPriority", "HolderIdle", "SliceEnded", "WaitedLongEnough"}

# What people asked for stands first, protection before grounds.
_reason(turn) := "IncomingWantedParked" if {
	turn.incoming.desired == "Parked"
} else := "Pinned" if {
	not _unpinned(turn.holder)
} else := "HolderWantedParked" if {
	turn.holder.desired == "Parked"
} else := "MinRuntime" if {
	not _may_be_disturbed(turn)
} else := "RunningRequest" if {
	turn.holder.in_flight > 0
	_grace_left(turn) > 0
} else := _early_ground(turn) if {
	_switches_left(turn)
} else := "SliceEnded" if {
	_slice_ended(turn)
} else := "WaitedLongEnough" if {
	_collation_left(turn) <= 0
} else := "SwitchLimit" if {
	_early_ground(turn)
} else := "Sticky"

# A rule of its own: `not x in y` does not hold where x is missing.
_unpinned(holder) if {
	holder.desired in {"Auto", "Parked"}
	object.get(holder, "pinned", false) == false
}

_unpinned(holder) if holder.desired == "Parked"

# Grounds for a switch before the slice ends: they make the traffic that may thrash.
_early_ground(turn) := "HigherPriority" if {
	_outranks(turn)
} else := "HolderIdle" if {
	_idle_left(turn) <= 0
}

_may_be_disturbed(turn) if _min_runtime_left(turn) <= 0

_may_be_disturbed(turn) if {
	_outranks(turn)
	terms.setting(turn.holder.class, "priority_overrides_min_runtime", turn.calendar) == true
}

_outranks(turn) if {
	is_number(turn.incoming.priority)
	is_number(turn.holder.priority)
	turn.incoming.priority > turn.holder.priority
	turn.incoming.class in terms.setting(turn.holder.class, "preemptible_by", turn.calendar)
}

_switches_left(turn) if {
	terms.duration(turn.switches_last_minute)
	turn.switches_last_minute < settings.turns.switches_per_minute_max
	is_number(settings.turns.switches_per_minute_max)
}

_slice_ended(turn) if _slice_left(turn) <= 0

# Seconds until each rule changes its mind; undefined where a fact is missing.
_min_runtime_left(turn) := terms.min_runtime(turn.holder, turn.calendar) - turn.holder.running_seconds if {
	terms.duration(turn.holder.running_seconds)
}

_slice_left(turn) := turn.slice_seconds - turn.holder.running_seconds if {
	terms.duration(turn.slice_seconds)
	terms.duration(turn.holder.running_seconds)
}

# Beyond its slice, so that a turn is bounded all the same.
_grace_left(turn) := _slice_left(turn) + settings.turns.running_request_grace_seconds if {
	terms.duration(settings.turns.running_request_grace_seconds)
}

_idle_left(turn) := terms.idle_after(turn.holder, turn.calendar) - turn.holder.idle_seconds if {
	terms.duration(turn.holder.idle_seconds)
}

# Only among equals: a lower priority waits for the end of the slice.
_collation_left(turn) := settings.turns.collation_max_wait_seconds - turn.incoming.waiting_seconds if {
	turn.incoming.priority == turn.holder.priority
	terms.duration(turn.incoming.waiting_seconds)
	terms.duration(settings.turns.collation_max_wait_seconds)
}

# Whatever may change the answer first; null when only people or new facts can.
_retry_seconds(turn, reason) := min([seconds | some seconds in _waits(turn, reason); seconds > 0])

_retry_seconds(turn, reason) := null if {
	count([seconds | some seconds in _waits(turn, reason); seconds > 0]) == 0
}

_waits(turn, reason) := [seconds | seconds := _min_runtime_left(turn)] if {
	reason == "MinRuntime"
} else := [seconds | seconds := _grace_left(turn)] if {
	reason == "RunningRequest"
} else := array.concat(
	array.concat(
		[seconds | seconds := _slice_left(turn)],
		[seconds | seconds := _collation_left(turn)],
	),
	[seconds | seconds := _idle_left(turn)],
) if {
	reason in {"Sticky", "SwitchLimit"}
} else := []

# Of several holders that may go: the lowest priority, then the one whose reload is the smallest part
# of the time until somebody asks for it again. How often it was asked for tells that, and how long
# nobody did.
_order(holder) := holder.priority + (0.99 * (reload / (reload + _expected(holder)))) if {
	is_number(holder.priority)
	reload := _reload(holder)
} else := 0

_reload(holder) := max([holder.reload_seconds, 0.001]) if {
	terms.duration(holder.reload_seconds)
} else := 1

_expected(holder) := max([seconds |
	some seconds in [0, object.get(holder, "idle_seconds", null), object.get(holder, "asked_every_seconds", null)]
	terms.duration(seconds)
])
