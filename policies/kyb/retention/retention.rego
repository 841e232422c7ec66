# METADATA
# title: Retention
# description: |
#   Which checkpoints of a workload are kept, and why. What is not named may go, once it has been so
#   for the grace time; code keeps what is claimed, referenced, gold (but for what is superseded), or
#   the last of its workload,
#   whatever is said here. Undefined keeps everything, and so does what cannot be read.
# custom:
#   reasons:
#     Gold: it is meant to start many replicas from
#     NotReady: nobody knows yet whether it is whole
#     Claimed: a pod wakes from it
#     NoPolicy: nobody says how many are kept
#     Newest: it is among the newest, as many as are kept
#     Young: it is younger than keep_seconds
#     Unreadable: it cannot be told how old it is
# schemas:
#   - input: schema.retention
#   - data.kyb.settings.quotas: schema.settings.quotas
#   - data.kyb.settings.retention: schema.settings.retention
package kyb.retention

import data.kyb.settings
import data.kyb.terms

# METADATA
# title: Verdict
# description: The entry point
# entrypoint: true
verdict := {"keep": _keep, "grace_seconds": _grace_seconds, "quota_bytes": _quota_bytes}

_keep[checkpoint.name] := reason if {
	some checkpoint in input.checkpoints
	reason := _reason(checkpoint)
}

_reason(checkpoint) := "Gold" if {
	not checkpoint.gold == false
	not _superseded(checkpoint)
} else := "NotReady" if {
	not checkpoint.ready == true
} else := "Claimed" if {
	not checkpoint.claimed == false
} else := _counted(checkpoint) if {
	not _superseded(checkpoint)
}

# A gold image that a policy has had made anew since, and that is of nothing that runs.
_superseded(checkpoint) if {
	checkpoint.gold == true
	checkpoint.superseded == true
}

_counted(checkpoint) := "Unreadable" if {
	not terms.duration(checkpoint.age_seconds)
} else := "NoPolicy" if {
	not _how_many
} else := "Newest" if {
	_newer_than(checkpoint) < _how_many
} else := "Young" if {
	checkpoint.age_seconds < _setting("keep_seconds")
}

# Of the same age, the name decides: as many as are kept are kept.
_newer_than(checkpoint) := count([other |
	some other in input.checkpoints
	other.ready == true
	other.gold == false
	terms.duration(other.age_seconds)
	[other.age_seconds, other.name] < [checkpoint.age_seconds, checkpoint.name]
])

# What a CheckpointPolicy says goes before what the namespace's settings say.
_how_many := input.keep if {
	is_number(input.keep)
	input.keep >= 1
} else := _setting("keep_newest") if {
	input.keep == null
	is_number(_setting("keep_newest"))
	_setting("keep_newest") >= 1
}

_setting(name) := value if {
	value := settings.retention.namespaces[input.namespace][name]
} else := settings.retention["default"][name]

_grace_seconds := settings.retention.grace_seconds if terms.duration(settings.retention.grace_seconds)

_quota_bytes := value if {
	value := settings.quotas.namespaces[input.namespace].checkpoint_bytes
} else := value if {
	value := settings.quotas["default"].checkpoint_bytes
} else := null
