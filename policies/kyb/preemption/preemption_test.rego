package kyb.preemption_test

import data.kyb.preemption

settings := {
	"classes": {
		"inference": {
			"min_runtime_seconds": 5, "idle_after_seconds": 4,
			"preemptible_by": ["inference"], "priority_overrides_min_runtime": false,
		},
		"batch": {
			"min_runtime_seconds": 30, "idle_after_seconds": 10,
			"preemptible_by": ["inference", "batch"], "priority_overrides_min_runtime": true,
		},
	},
	"turns": {"collation_max_wait_seconds": 15, "switches_per_minute_max": 10},
	"calendar": {"windows": []},
}

holder := {
	"key": "d/holder", "class": "inference", "priority": 0, "desired": "Auto",
	"running_seconds": 6, "idle_seconds": 0, "min_runtime_seconds": null,
}

incoming := {
	"key": "d/incoming", "class": "inference", "priority": 0, "desired": "Auto",
	"waiting_seconds": 1,
}

turn := {
	"incoming": incoming, "holder": holder, "slice_seconds": 20, "switches_last_minute": 0,
	"calendar": {"weekday": 0, "hour": 9, "minute": 0},
}

question(incoming_facts, holder_facts) := object.union(turn, {
	"incoming": incoming_facts,
	"holder": holder_facts,
})

asked(asking) := verdict if {
	verdict := preemption.verdict with input as asking with data.kyb.settings as settings
}

held(facts) := asked(question({}, facts))

without(name) := asked(object.union(
	object.remove(turn, ["holder"]),
	{"holder": object.remove(holder, [name])},
))

answers(verdict, allow, reason) if {
	verdict.allow == allow
	verdict.reason == reason
}

test_a_busy_holder_keeps_the_gpu_from_its_equals if {
	answers(held({}), false, "Sticky")
}

test_it_says_when_the_answer_may_change if {
	held({}).retry_seconds == 4 # idle by then
	held({"idle_seconds": null}).retry_seconds == 14 # slice and collation
	asked(question({"waiting_seconds": 10}, {"idle_seconds": null})).retry_seconds == 5
	held({"running_seconds": 2}).retry_seconds == 3
}

test_a_holder_is_protected_within_its_minimum_runtime if {
	answers(held({"running_seconds": 4.9, "idle_seconds": 4}), false, "MinRuntime")
}

test_the_pods_own_wish_counts_before_its_class if {
	answers(held({"running_seconds": 50, "min_runtime_seconds": 60}), false, "MinRuntime")
	answers(held({"running_seconds": 1, "min_runtime_seconds": 0, "idle_seconds": 4}), true, "HolderIdle")
}

test_priority_counts_only_after_the_minimum_runtime if {
	answers(asked(question({"priority": 9}, {"running_seconds": 4})), false, "MinRuntime")
	answers(asked(question({"priority": 9}, {"running_seconds": 5})), true, "HigherPriority")
}

test_priority_overrides_the_minimum_runtime_where_data_say_so if {
	answers(asked(question({"priority": 9}, {"class": "batch", "running_seconds": 1})), true, "HigherPriority")
	answers(asked(question({"priority": 0}, {"class": "batch", "running_seconds": 1})), false, "MinRuntime")
}

test_a_class_that_may_not_preempt_waits_for_the_slice if {
	answers(asked(question({"priority": 9, "class": "batch"}, {})), false, "Sticky")
	answers(asked(question({"priority": 9, "class": "batch"}, {"running_seconds": 20})), true, "SliceEnded")
}

test_an_idle_holder_yields_to_anybody if {
	answers(held({"idle_seconds": 4}), true, "HolderIdle")
	answers(asked(question({"priority": -5}, {"idle_seconds": 4})), true, "HolderIdle")
}

test_nobody_knows_that_a_holder_of_unknown_idleness_is_idle if {
	answers(held({"idle_seconds": null}), false, "Sticky")
}

test_at_the_end_of_the_slice_the_lower_has_its_turn if {
	answers(asked(question({"priority": -5}, {"running_seconds": 19})), false, "Sticky")
	answers(asked(question({"priority": -5}, {"running_seconds": 20})), true, "SliceEnded")
}

test_an_equal_waits_no_longer_than_collation_allows if {
	answers(asked(question({"waiting_seconds": 15}, {})), true, "WaitedLongEnough")
	answers(asked(question({"waiting_seconds": 15, "priority": -5}, {})), false, "Sticky")
}

test_a_pinned_holder_stays_whoever_asks if {
	answers(asked(question({"priority": 9}, {"desired": "Active", "running_seconds": 999})), false, "Pinned")
}

test_a_holder_that_somebody_wants_parked_goes_at_once if {
	answers(held({"desired": "Parked", "running_seconds": 0}), true, "HolderWantedParked")
}

test_a_workload_that_somebody_wants_parked_gets_nothing if {
	answers(asked(question({"desired": "Parked", "priority": 9}, {"idle_seconds": 99})), false, "IncomingWantedParked")
}

test_a_gpu_that_switches_too_often_waits_for_the_end_of_the_slice if {
	often := object.union(turn, {"switches_last_minute": 10, "incoming": {"priority": 9}})
	answers(asked(often), false, "SwitchLimit")
	asked(often).retry_seconds == 4
	answers(asked(object.union(often, {"holder": {"running_seconds": 20}})), true, "SliceEnded")
}

test_nobody_who_counts_switches_protects if {
	uncounted := object.remove(object.union(turn, {"incoming": {"priority": 9}}), ["switches_last_minute"])
	answers(asked(uncounted), false, "SwitchLimit")
}

test_missing_running_seconds_protect if {
	answers(without("running_seconds"), false, "MinRuntime")
	without("running_seconds").retry_seconds == null
}

test_running_seconds_that_are_no_number_protect if {
	answers(held({"running_seconds": "long"}), false, "MinRuntime")
}

test_a_missing_class_protects if {
	answers(without("class"), false, "MinRuntime")
}

test_a_missing_wish_of_people_protects if {
	answers(without("desired"), false, "Pinned")
}

test_a_missing_priority_never_outranks if {
	answers(without("priority"), false, "Sticky")
	without("priority").order == 0
}

test_missing_data_protect if {
	verdict := preemption.verdict with input as object.union(turn, {"holder": {"running_seconds": 999}})
		with data.kyb.settings as {}
	answers(verdict, false, "MinRuntime")
}

test_a_missing_question_protects if {
	answers(preemption.verdict, false, "Protected") with data.kyb.settings as settings
}

test_an_empty_question_protects if {
	answers(asked({}), false, "Protected")
}

test_the_lowest_priority_goes_first_and_among_equals_the_longest_idle if {
	order := [held(facts).order | some facts in [
		{"priority": -1, "idle_seconds": 0},
		{"priority": 0, "idle_seconds": 9000},
		{"priority": 0, "idle_seconds": 60},
		{"priority": 0, "idle_seconds": null},
		{"priority": 1, "idle_seconds": 9000},
	]]
	order == sort(order)
}
