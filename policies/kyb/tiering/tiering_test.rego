package kyb.tiering_test

import data.kyb.tiering

settings := {
	"classes": {"inference": {"min_runtime_seconds": 5, "idle_after_seconds": 4}},
	"tiering": {"park_idle": {"inference": "asked"}},
	"calendar": {"windows": []},
}

idle := {
	"key": "d/a", "class": "inference", "priority": 0, "vram": 40, "desired": "Auto",
	"running_seconds": 100, "idle_seconds": 31, "min_runtime_seconds": null,
	"idle_after_seconds": 30, "in_flight": null, "pinned": false, "gpus": [0],
}

asked(facts) := verdict if {
	verdict := tiering.verdict with input as question(facts) with data.kyb.settings as settings
}

question(facts) := {
	"workload": object.union(idle, facts),
	"waiting": 0,
	"ram_free": 40,
	"calendar": {"weekday": 0, "hour": 9, "minute": 0},
}

stays(facts, reason) if {
	verdict := asked(facts)
	verdict.tier == "vram"
	verdict.reason == reason
}

mode(word) := object.union(settings, {"tiering": {"park_idle": {"inference": word}}})

test_who_asked_to_be_parked_when_idle_is_parked if {
	asked({}) == {"tier": "ram", "reason": "Idle", "after_seconds": null}
	asked({"in_flight": 0}).tier == "ram"
}

test_it_stays_until_it_was_idle_for_as_long_as_its_pod_says if {
	asked({"idle_seconds": 10}) == {"tier": "vram", "reason": "NotIdleYet", "after_seconds": 20}
}

test_it_stays_within_its_minimum_runtime if {
	asked({"running_seconds": 2}) == {"tier": "vram", "reason": "MinRuntime", "after_seconds": 3}
	stays({"running_seconds": "long"}, "MinRuntime")
}

test_it_stays_while_it_has_a_request if {
	stays({"in_flight": 1}, "RunningRequest")
}

test_it_stays_where_nobody_can_tell_whether_it_works if {
	stays({"idle_seconds": null}, "IdleUnknown")
	stays({"idle_seconds": "forever"}, "IdleUnknown")
}

test_who_does_not_say_when_it_is_idle_stays_until_somebody_else_wants_the_gpu if {
	stays({"idle_after_seconds": null}, "NotAsked")
}

test_policy_may_park_everybody_who_is_idle if {
	told := question({"idle_after_seconds": null})
	always := tiering.verdict with input as told with data.kyb.settings as mode("always")
	always.tier == "ram"
}

test_policy_may_leave_idle_holders_alone if {
	never := tiering.verdict with input as question({}) with data.kyb.settings as mode("contested")
	never.reason == "Contested"
	unread := tiering.verdict with input as question({}) with data.kyb.settings as mode(null)
	unread.reason == "Contested"
}

test_pinned_ones_stay if {
	stays({"pinned": true}, "Pinned")
	stays({"pinned": null}, "Pinned")
	stays({"desired": "Active"}, "WantedActive")
}

test_it_stays_where_its_contents_have_no_room if {
	stays({"vram": 41}, "NoRoom")
	told := {"workload": idle, "calendar": {"weekday": 0, "hour": 9, "minute": 0}}
	unread := tiering.verdict with input as told with data.kyb.settings as settings
	unread.reason == "NoRoom"
}
