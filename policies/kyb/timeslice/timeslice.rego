# METADATA
# title: Time slices
# description: |
#   Whose turn is it? The first of the fair order, once every holder that is in its way may go.
#   Nobody jumps the queue: while the first waits, all wait, so that each wait is bounded by the
#   turns before it.
# custom:
#   reasons:
#     NobodyWaits: no waiting workload may run
#     Free: no holder is in the way of the first in line
#   reasons_also_from: kyb.preemption
# schemas:
#   - input: schema.timeslice
package kyb.timeslice

import data.kyb.preemption
import data.kyb.terms

# METADATA
# title: Verdict
# description: |
#   The entry point. Undefined where the terms of any tenant cannot be read, and where holders are
#   not listed: nobody may take them for none.
# entrypoint: true
verdict := object.union(_turn, {"terms": _terms}) if {
	is_array(input.holders)
	is_array(input.waiting)
}

# A tenant whose terms are undefined makes the whole rule undefined, rather than missing from it.
_terms := {key: _terms_of(tenant) | some key, tenant in _tenants} if {
	every tenant in _tenants {
		_terms_of(tenant)
	}
}

_terms_of(tenant) := {
	"slice_seconds": terms.slice(tenant, input.calendar),
	"min_runtime_seconds": terms.min_runtime(tenant, input.calendar),
}

_tenants := {tenant.key: tenant | some tenant in array.concat(input.holders, input.waiting)}

# METADATA
# description: |
#   Who has had a turn while others waited goes behind those who have not; then by priority, then
#   by how long they wait. The coordinator holds policy to this, so a change here alone is refused.
fair_order := [line[3] | some line in sort(_lines)]

_lines := [[_had_a_turn(tenant), 0 - tenant.priority, 0 - tenant.waiting_seconds, tenant.key] |
	some tenant in input.waiting
	not tenant.desired == "Parked"
	is_number(tenant.priority)
	terms.duration(tenant.waiting_seconds)
]

_had_a_turn(tenant) := 1 if {
	tenant.ran_since_others_wait == true
} else := 0

_first := _tenants[fair_order[0]]

_in_the_way := [holder | some holder in input.holders; _contends(holder, _first)]

_contends(holder, tenant) if not _apart(holder, tenant)

# Only GPUs that both name keep them apart.
_apart(one, other) if {
	count(one.gpus) > 0
	count(other.gpus) > 0
	every gpu in one.gpus {
		not gpu in other.gpus
	}
}

_judgements := [judgement |
	some holder in _in_the_way
	judgement := preemption.judge({
		"incoming": _first,
		"holder": holder,
		"calendar": input.calendar,
		"slice_seconds": terms.slice(holder, input.calendar),
		"switches_last_minute": 0, # the preemption question counts them
	})
]

_refusals := [judgement | some judgement in _judgements; not judgement.allow]

_turn := {"next": null, "reason": "NobodyWaits", "retry_seconds": null} if {
	count(fair_order) == 0
} else := {"next": fair_order[0], "reason": "Free", "retry_seconds": null} if {
	count(_in_the_way) == 0
} else := {"next": null, "reason": _refusals[0].reason, "retry_seconds": _retry_seconds} if {
	count(_refusals) > 0
} else := {"next": fair_order[0], "reason": _judgements[0].reason, "retry_seconds": null} if {
	count(_judgements) == count(_in_the_way)
}

# All of them must go, so the last decides; null when one of them has no time of its own.
_retry_seconds := max([judgement.retry_seconds | some judgement in _refusals]) if {
	every judgement in _refusals {
		is_number(judgement.retry_seconds)
	}
} else := null
