package kyb.placement_test

import data.kyb.placement

rules := [
	{"name": "spot", "classes": ["training"], "labels": {"spot": ["true", "yes"]}, "penalty_seconds": 30},
	{"name": "old", "products": ["T4", "V100"], "penalty_seconds": 2},
	{"name": "kept", "namespaces": ["guests"], "labels": {"kept": ["team-a"]}, "deny": "Kept"},
	{"name": "large", "resources": ["kyb.ai/gpu-1x-seat"], "products": ["H200"], "priority_below": 100, "deny": "ForLarge"},
]

node(facts) := object.union(
	{"id": "one", "product": "NVIDIA H100", "labels": {}, "healthy": true},
	facts,
)

asked(pod, classes) := verdict if {
	about := {"namespace": "apps", "class": "inference", "priority": 0, "resource": "kyb.ai/gpu-1x-seat"}
	verdict := placement.verdict with input as object.union(object.union(about, pod), {"classes": classes})
		with data.kyb.settings as {"placement": {"rules": rules}}
}

free := {"deny": {}, "penalty_seconds": {}}

test_a_healthy_class_of_nodes_that_no_rule_names_is_free if {
	asked({}, [node({})]) == free
}

test_a_class_that_is_not_known_to_be_healthy_is_denied if {
	asked({}, [node({"healthy": false})]).deny == {"one": "Unhealthy"}
	asked({}, [object.remove(node({}), ["healthy"])]).deny == {"one": "Unhealthy"}
	asked({}, [node({"healthy": "yes"})]).deny == {"one": "Unhealthy"}
}

test_a_rule_speaks_when_all_that_it_names_holds if {
	spot := node({"labels": {"spot": "true"}})
	asked({"class": "training"}, [spot]).penalty_seconds == {"one": 30}
	asked({"class": "batch"}, [spot]) == free
	asked({"class": "training"}, [node({})]) == free
}

test_penalties_add_up if {
	spot := node({"product": "Tesla T4", "labels": {"spot": "yes"}})
	asked({"class": "training"}, [spot]).penalty_seconds == {"one": 32}
}

test_a_rule_for_a_namespace_speaks_to_that_namespace_only if {
	kept := node({"labels": {"kept": "team-a"}})
	asked({"namespace": "guests"}, [kept]).deny == {"one": "Kept"}
	asked({}, [kept]) == free
}

test_a_rule_below_a_priority_spares_those_above if {
	large := node({"product": "NVIDIA H200"})
	asked({"priority": 99}, [large]).deny == {"one": "ForLarge"}
	asked({"priority": 100}, [large]) == free
}

test_classes_are_judged_one_by_one if {
	asked({}, [node({}), node({"id": "two", "healthy": false})]).deny == {"two": "Unhealthy"}
}

test_without_data_placement_is_free if {
	verdict := placement.verdict with input as {"classes": [node({})]} with data.kyb.settings as {}
	verdict == free
}
