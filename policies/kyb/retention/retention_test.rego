package kyb.retention_test

import data.kyb.retention

settings := {
	"retention": {
		"default": {"keep_newest": null, "keep_seconds": 0},
		"namespaces": {"lab": {"keep_newest": 1, "keep_seconds": 100}},
		"grace_seconds": 600,
	},
	"quotas": {"default": {}, "namespaces": {"lab": {"checkpoint_bytes": 1000}}},
}

one(name, age) := {
	"name": name, "age_seconds": age, "size": 10, "gold": false, "ready": true, "claimed": false,
}

asked(namespace, keep, checkpoints) := verdict if {
	question := {
		"namespace": namespace, "workload": "statefulset.llama.0", "keep": keep,
		"checkpoints": checkpoints,
	}
	verdict := retention.verdict with input as question with data.kyb.settings as settings
}

three := [one("a", 300), one("b", 200), one("c", 100)]

test_the_newest_are_kept_as_a_policy_says if {
	asked("default", 2, three).keep == {"b": "Newest", "c": "Newest"}
}

test_where_nobody_says_how_many_all_are_kept if {
	asked("default", null, three).keep == {"a": "NoPolicy", "b": "NoPolicy", "c": "NoPolicy"}
	asked("default", 0, three).keep.a == "NoPolicy"
	asked("default", "two", three).keep.a == "NoPolicy"
}

test_the_namespace_may_say_how_many if {
	asked("lab", null, array.concat(three, [one("d", 50), one("e", 60)])).keep == {"d": "Newest", "e": "Young"}
	asked("lab", 2, three).keep == {"b": "Newest", "c": "Newest"}
}

test_of_the_same_age_as_many_as_are_kept_are_kept if {
	count(asked("default", 1, [one("a", 5), one("b", 5)]).keep) == 1
}

test_what_is_gold_claimed_or_not_ready_is_kept_and_counts_not if {
	gold := object.union(one("gold", 1), {"gold": true})
	claimed := object.union(one("claimed", 400), {"claimed": true})
	unready := object.union(one("unready", 1), {"ready": false})
	kept := asked("default", 1, array.concat(three, [gold, claimed, unready])).keep
	kept == {"gold": "Gold", "claimed": "Claimed", "unready": "NotReady", "c": "Newest"}
}

test_a_gold_image_that_was_made_anew_is_kept_for_nothing_but_a_claim if {
	old := object.union(one("old", 400), {"gold": true, "superseded": true})
	asked("default", 3, [old, one("a", 5)]).keep == {"a": "Newest"}
	asked("default", null, [old]).keep == {}
	asked("default", 3, [object.union(old, {"ready": false})]).keep == {"old": "NotReady"}
	asked("default", 3, [object.union(old, {"superseded": "yes"})]).keep == {"old": "Gold"}
	asked("default", 1, [object.union(one("b", 9), {"superseded": true})]).keep == {"b": "Newest"}
}

test_what_cannot_be_read_is_kept if {
	asked("default", 1, [one("a", "old"), one("b", 5)]).keep == {"a": "Unreadable", "b": "Newest"}
	asked("default", 1, [object.union(one("a", 5), {"gold": "no"}), one("b", 1)]).keep.a == "Gold"
}

test_grace_and_quota_are_said if {
	asked("default", 1, three).grace_seconds == 600
	asked("default", 1, three).quota_bytes == null
	asked("lab", 1, three).quota_bytes == 1000
	everywhere := object.union(settings, {"quotas": {"default": {"checkpoint_bytes": 7}, "namespaces": {}}})
	question := {"namespace": "x", "workload": "w", "keep": 1, "checkpoints": three}
	said := retention.verdict with input as question with data.kyb.settings as everywhere
	said.quota_bytes == 7
}

test_without_a_grace_time_there_is_no_verdict if {
	broken := object.union(settings, {"retention": {"default": {"keep_newest": 1, "keep_seconds": 0}, "namespaces": {}, "grace_seconds": "soon"}})
	question := {"namespace": "x", "workload": "w", "keep": 1, "checkpoints": three}
	not retention.verdict with input as question with data.kyb.settings as broken
}
