package kyb.timeslice_test

import data.kyb.timeslice

settings := {
	"classes": {"inference": {
		"min_runtime_seconds": 5, "slice_seconds": 20, "idle_after_seconds": 4,
		"preemptible_by": ["inference"], "priority_overrides_min_runtime": false,
	}},
	"turns": {"collation_max_wait_seconds": 15, "switches_per_minute_max": 10},
	"calendar": {"windows": []},
}

tenant(key, facts) := object.union(
	{
		"key": key, "class": "inference", "priority": 0, "desired": "Auto", "running_seconds": 0,
		"waiting_seconds": 0, "idle_seconds": 0, "min_runtime_seconds": null, "gpus": [],
	},
	facts,
)

asked(holders, waiting) := verdict if {
	verdict := timeslice.verdict with input as question(holders, waiting) with data.kyb.settings as settings
}

question(holders, waiting) := {
	"holders": holders,
	"waiting": waiting,
	"calendar": {"weekday": 0, "hour": 9, "minute": 0},
}

order(waiting) := line if {
	line := timeslice.fair_order with input as question([], waiting) with data.kyb.settings as settings
}

answers(verdict, next, reason) if {
	verdict.next == next
	verdict.reason == reason
}

a := tenant("d/a", {"running_seconds": 6})

test_a_free_gpu_goes_to_the_first_in_line if {
	answers(asked([], [tenant("d/b", {}), tenant("d/c", {"waiting_seconds": 1})]), "d/c", "Free")
}

test_nobody_is_next_where_nobody_waits if {
	answers(asked([a], []), null, "NobodyWaits")
}

test_whoever_had_a_turn_goes_behind_those_who_had_none if {
	order([
		tenant("d/high-again", {"priority": 9, "waiting_seconds": 99, "ran_since_others_wait": true}),
		tenant("d/low", {"priority": -9, "waiting_seconds": 1, "ran_since_others_wait": false}),
	]) == ["d/low", "d/high-again"]
}

test_among_those_the_higher_priority_then_the_longer_wait_comes_first if {
	order([
		tenant("d/new", {"waiting_seconds": 1}),
		tenant("d/old", {"waiting_seconds": 2}),
		tenant("d/high", {"priority": 1}),
	]) == ["d/high", "d/old", "d/new"]
}

test_a_workload_that_somebody_wants_parked_is_not_in_line if {
	answers(asked([a], [tenant("d/b", {"desired": "Parked"})]), null, "NobodyWaits")
}

test_a_workload_whose_wait_cannot_be_read_is_not_in_line if {
	order([tenant("d/b", {"waiting_seconds": "long"}), tenant("d/c", {"priority": null})]) == []
}

test_the_holder_keeps_the_gpu_while_it_is_busy if {
	verdict := asked([a], [tenant("d/b", {})])
	answers(verdict, null, "Sticky")
	verdict.retry_seconds == 4
}

test_the_first_in_line_gets_the_gpu_when_the_slice_ends if {
	answers(asked([tenant("d/a", {"running_seconds": 20})], [tenant("d/b", {})]), "d/b", "SliceEnded")
}

test_a_higher_priority_that_had_its_turn_does_not_jump_the_queue if {
	waiting := [
		tenant("d/high-again", {"priority": 9, "ran_since_others_wait": true}),
		tenant("d/b", {}),
	]
	answers(asked([a], waiting), null, "Sticky")
	answers(asked([a], [waiting[0]]), "d/high-again", "HigherPriority")
}

test_every_holder_in_the_way_must_be_done if {
	done := tenant("d/done", {"running_seconds": 30})
	answers(asked([done, a], [tenant("d/b", {})]), null, "Sticky")
}

test_a_holder_on_other_gpus_is_not_in_the_way if {
	done := tenant("d/done", {"running_seconds": 30, "gpus": [1]})
	busy := tenant("d/busy", {"running_seconds": 6, "gpus": [0]})
	answers(asked([done, busy], [tenant("d/b", {"gpus": [1]})]), "d/b", "SliceEnded")
	answers(asked([busy], [tenant("d/b", {"gpus": [1]})]), "d/b", "Free")
	answers(asked([done, busy], [tenant("d/b", {"gpus": [0, 1]})]), null, "Sticky")
}

test_of_several_holders_the_last_to_be_done_says_when if {
	asked([a, tenant("d/young", {"running_seconds": 0, "idle_seconds": null})], [tenant("d/b", {})]).retry_seconds == 5
	pinned := tenant("d/pinned", {"desired": "Active"})
	asked([a, pinned], [tenant("d/b", {})]).retry_seconds == null
}

test_everybody_has_terms if {
	asked([a], [tenant("d/b", {"min_runtime_seconds": 40})]).terms == {
		"d/a": {"slice_seconds": 20, "min_runtime_seconds": 5},
		"d/b": {"slice_seconds": 40, "min_runtime_seconds": 40},
	}
}

test_terms_that_cannot_be_read_leave_the_verdict_undefined if {
	not asked([a], [tenant("d/b", {"class": "gaming"})])
	not timeslice.verdict with input as question([a], []) with data.kyb.settings as {}
}

test_undefined_where_holders_are_not_listed if {
	told := question([a], [tenant("d/b", {})])
	every part in {"holders", "waiting"} {
		missing := object.remove(told, {part})
		not timeslice.verdict with input as missing with data.kyb.settings as settings
		null_for_it := object.union(told, {part: null})
		not timeslice.verdict with input as null_for_it with data.kyb.settings as settings
	}
}
