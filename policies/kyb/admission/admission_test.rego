package kyb.admission_test

import data.kyb.admission

settings := {
	"classes": {
		"inference": {"on_delete": "discard", "min_runtime_seconds": 5, "idle_after_seconds": 1.5, "min_runtime_max_seconds": 60},
		"training": {"on_delete": "checkpoint", "min_runtime_seconds": 30, "idle_after_seconds": 30, "min_runtime_max_seconds": 600},
	},
	"admission": {
		"stamped": ["kyb.ai/class", "kyb.ai/on-delete", "kyb.ai/min-runtime", "kyb.ai/idle-after"],
		"vram_min": "16Mi",
		"vram_max_per_gpu": "100Gi",
	},
	"quotas": {
		"default": {"default_class": "inference", "classes": ["inference", "training"], "seats": {}},
		"namespaces": {"small": {
			"default_class": "training", "classes": ["training"],
			"seats": {"kyb.ai/gpu-1x-seat": 2, "kyb.ai/gpu-2x-seat": 0},
		}},
	},
	"ignored": {"namespaces": ["kyb-system"]},
}

gib := (1024 * 1024) * 1024

pod(annotations) := {"metadata": {"annotations": annotations}}

question := {
	"pod": pod({}), "namespace": "apps", "resource": "kyb.ai/gpu-1x-seat", "vram": 40 * gib,
	"min_runtime_seconds": null, "seats_used": null,
}

asked(facts) := verdict if {
	verdict := admission.verdict with input as object.union(question, facts) with data.kyb.settings as settings
}

denied(facts) := {denial.reason | some denial in asked(facts).deny}

test_an_ordinary_pod_is_admitted if {
	denied({}) == set()
}

test_a_pod_is_given_what_its_class_has if {
	asked({}).defaults == {
		"kyb.ai/class": "inference", "kyb.ai/on-delete": "discard",
		"kyb.ai/min-runtime": "5s", "kyb.ai/idle-after": "1.5s",
	}
	asked({"pod": pod({"kyb.ai/class": "training"})}).defaults["kyb.ai/on-delete"] == "checkpoint"
}

test_what_a_pod_says_itself_is_not_given if {
	object.keys(asked({"pod": pod({"kyb.ai/on-delete": "discard"})}).defaults) == {"kyb.ai/class", "kyb.ai/min-runtime", "kyb.ai/idle-after"}
}

test_annotations_of_null_are_none if {
	asked({"pod": pod(null)}).defaults["kyb.ai/class"] == "inference"
}

test_a_namespace_has_its_own_default_class if {
	asked({"namespace": "small", "seats_used": {}}).defaults["kyb.ai/class"] == "training"
}

test_a_class_that_the_namespace_may_not_run_is_denied if {
	denied({"namespace": "small", "seats_used": {}, "pod": pod({"kyb.ai/class": "inference"})}) == {"ClassNotAllowed"}
}

test_a_class_that_does_not_exist_is_denied if {
	denied({"pod": pod({"kyb.ai/class": "gaming"})}) == {"ClassNotAllowed"}
}

test_seats_are_counted_against_the_quota if {
	denied({"namespace": "small", "seats_used": {"kyb.ai/gpu-1x-seat": 1}}) == set()
	denied({"namespace": "small", "seats_used": {"kyb.ai/gpu-1x-seat": 2}}) == {"SeatQuota"}
	denied({"namespace": "small", "seats_used": {}}) == set()
	denied({"namespace": "small", "seats_used": {}, "resource": "kyb.ai/gpu-2x-seat"}) == {"SeatQuota"}
}

test_seats_that_nobody_counted_are_denied_where_there_is_a_limit if {
	denied({"namespace": "small", "seats_used": null}) == {"SeatQuota"}
}

test_absurd_vram_is_denied if {
	denied({"vram": 40}) == {"VramAbsurd"}
	denied({"vram": 101 * gib}) == {"VramAbsurd"}
	denied({"vram": "40Gi"}) == {"VramAbsurd"}
	denied({"vram": null}) == set()
}

test_a_seat_on_two_gpus_may_have_twice_the_vram if {
	denied({"vram": 200 * gib, "resource": "kyb.ai/gpu-2x-seat"}) == set()
	denied({"vram": 201 * gib, "resource": "kyb.ai/gpu-2x-seat"}) == {"VramAbsurd"}
}

test_a_minimum_runtime_is_bounded_by_the_class if {
	denied({"min_runtime_seconds": 60}) == set()
	denied({"min_runtime_seconds": 61}) == {"MinRuntimeTooLong"}
	denied({"min_runtime_seconds": 61, "pod": pod({"kyb.ai/class": "training"})}) == set()
	denied({"min_runtime_seconds": "1m"}) == {"MinRuntimeTooLong"}
}

test_policy_has_no_say_in_an_ignored_namespace if {
	asked({"namespace": "kyb-system", "vram": 1}) == {"deny": set(), "defaults": {}}
}

test_missing_data_deny if {
	verdict := admission.verdict with input as question with data.kyb.settings as {}
	{denial.reason | some denial in verdict.deny} == {"ClassNotAllowed", "SeatQuota", "VramAbsurd"}
}

test_a_missing_question_is_denied if {
	verdict := admission.verdict with input as {} with data.kyb.settings as settings
	{denial.reason | some denial in verdict.deny} == {"SeatQuota", "VramAbsurd", "MinRuntimeTooLong"}
}
