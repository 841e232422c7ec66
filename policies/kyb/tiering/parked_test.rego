package kyb.tiering.parked_test

import data.kyb.tiering

settings := {"tiering": {
	"park_idle": {"inference": "asked"},
	"demote_after_seconds": {"inference": 600},
	"keep_ram_free_percent": 20,
	"stage_ahead": 1,
	"expect_percent": 80,
	"store_after_seconds": {"inference": 3600},
	"keep_nvme_free_percent": 20,
}}

workload := {
	"key": "d/a", "class": "inference", "priority": 0, "vram": 40, "desired": "Auto",
	"state": "Parked", "asked_every_seconds": null,
}

facts := {
	"tier": "ram", "seconds": 10, "place": null, "fetch_seconds": 2, "ram_capacity": 200,
	"ram_short": 0, "ram_to_come": 0, "nvme_free": 1000,
	"nvme_capacity": 1000, "nvme_short": 0, "object_free": 5000,
}

asked(ram_free, of_it, parked) := verdict if {
	question := {
		"workload": object.union(workload, of_it),
		"waiting": 0,
		"ram_free": ram_free,
		"calendar": {"weekday": 0, "hour": 9, "minute": 0},
		"parked": object.union(facts, parked),
	}
	verdict := tiering.verdict with input as question with data.kyb.settings as settings
}

is(verdict, tier, reason) if {
	verdict.tier == tier
	verdict.reason == reason
}

test_ram_that_nobody_needs_is_used if {
	is(asked(40, {}, {"seconds": 100000}), "ram", "RamIsFree")
}

test_where_ram_is_scarce_it_stays_for_a_while if {
	verdict := asked(39, {}, {"seconds": 100})
	is(verdict, "ram", "ParkedLately")
	verdict.after_seconds == 500
	is(asked(39, {}, {"seconds": 600}), "nvme", "ParkedLong")
}

test_it_leaves_for_whoever_is_to_be_parked if {
	is(asked(200, {}, {"ram_short": 1}), "nvme", "RoomNeeded")
	is(asked(200, {}, {"ram_short": 1, "place": 0}), "nvme", "RoomNeeded")
	is(asked(200, {}, {"ram_short": 1, "tier": "nvme"}), "nvme", "RoomNeeded")
}

test_it_stays_where_nvme_has_no_room if {
	is(asked(0, {}, {"ram_short": 1, "nvme_free": 39}), "ram", "NoNvmeRoom")
	is(asked(0, {"vram": null}, {"ram_short": 1}), "ram", "NoNvmeRoom")
}

test_who_waits_for_its_turn_stays if {
	is(asked(0, {}, {"place": 3, "seconds": 10000}), "ram", "Waits")
}

test_a_setting_that_cannot_be_read_leaves_it_where_it_is if {
	question := {
		"workload": workload, "waiting": 0, "ram_free": 0,
		"calendar": {"weekday": 0, "hour": 9, "minute": 0},
		"parked": object.union(facts, {"seconds": 100000}),
	}
	bare := {"tiering": {"park_idle": {"inference": "asked"}}}
	verdict := tiering.verdict with input as question with data.kyb.settings as bare
	is(verdict, "ram", "RamIsFree")
	keeping := {"tiering": {"keep_ram_free_percent": 50}}
	halved := tiering.verdict with input as question with data.kyb.settings as keeping
	is(halved, "ram", "ParkedLately")
}

test_the_next_in_line_is_brought_up if {
	is(asked(40, {}, {"tier": "nvme", "place": 0}), "ram", "Next")
	is(asked(40, {}, {"tier": "nvme", "place": 1}), "nvme", "NotExpected")
}

test_it_is_brought_up_only_beside_those_that_are_parked_for_it if {
	is(asked(40, {}, {"tier": "nvme", "place": 0, "ram_to_come": 1}), "nvme", "NoRamRoom")
	is(asked(41, {}, {"tier": "nvme", "place": 0, "ram_to_come": 1}), "ram", "Next")
}

test_who_is_asked_for_about_this_often_is_brought_up if {
	often := {"asked_every_seconds": 100}
	is(asked(80, often, {"tier": "nvme", "seconds": 80}), "ram", "Expected")
	early := asked(80, often, {"tier": "nvme", "seconds": 70})
	is(early, "nvme", "NotExpected")
	early.after_seconds == 10
	is(asked(79, often, {"tier": "nvme", "seconds": 80}), "nvme", "NotExpected")
	wanted_parked := object.union(often, {"desired": "Parked"})
	is(asked(80, wanted_parked, {"tier": "nvme", "seconds": 80}), "nvme", "NotExpected")
}

test_it_goes_on_into_object_storage_for_whoever_has_to_leave_ram if {
	is(asked(0, {}, {"tier": "nvme", "ram_short": 1, "nvme_short": 1}), "object", "NvmeNeeded")
	full := {"tier": "nvme", "ram_short": 1, "nvme_short": 1, "object_free": 39}
	is(asked(200, {}, full), "nvme", "RoomNeeded")
}

test_where_nvme_is_scarce_it_goes_on_after_a_while if {
	early := asked(200, {}, {"tier": "nvme", "nvme_free": 199, "seconds": 3000})
	is(early, "nvme", "NotExpected")
	early.after_seconds == 600
	late := {"tier": "nvme", "nvme_free": 199, "seconds": 3600}
	is(asked(200, {}, late), "object", "LongOnNvme")
	is(asked(200, {}, object.union(late, {"nvme_free": 200})), "nvme", "NotExpected")
	is(asked(200, {}, object.union(late, {"object_free": 0})), "nvme", "NotExpected")
	is(asked(200, {}, object.union(late, {"place": 3})), "nvme", "NotExpected")
	is(asked(0, {"asked_every_seconds": 100}, late), "nvme", "NoRamRoom")
}

test_it_comes_back_from_object_storage_when_it_is_next_or_expected if {
	stored := {"tier": "object"}
	is(asked(200, {}, stored), "object", "NotExpected")
	is(asked(40, {}, object.union(stored, {"place": 0})), "ram", "Next")
	is(asked(39, {}, object.union(stored, {"place": 0})), "nvme", "Next")
	none := {"place": 0, "nvme_free": 39}
	is(asked(39, {}, object.union(stored, none)), "object", "NoRoomAbove")
	often := {"asked_every_seconds": 100}
	is(asked(80, often, object.union(stored, {"seconds": 80})), "ram", "Expected")
	is(asked(79, often, object.union(stored, {"seconds": 80})), "nvme", "Expected")
	scarce := {"seconds": 80, "nvme_free": 239}
	is(asked(79, often, object.union(stored, scarce)), "object", "NoRoomAbove")
}

test_settings_that_do_not_know_object_storage_leave_it_on_nvme if {
	question := {
		"workload": workload, "waiting": 0, "ram_free": 200,
		"calendar": {"weekday": 0, "hour": 9, "minute": 0},
		"parked": object.union(facts, {"tier": "nvme", "nvme_free": 100, "seconds": 100000}),
	}
	bare := {"tiering": {"keep_ram_free_percent": 20, "stage_ahead": 1, "expect_percent": 80}}
	verdict := tiering.verdict with input as question with data.kyb.settings as bare
	is(verdict, "nvme", "NotExpected")
}

test_value_is_what_a_reload_costs_by_how_often_it_is_asked_for if {
	asked(0, {"asked_every_seconds": 100}, {}).value == 0.02
	asked(0, {"asked_every_seconds": 100}, {"seconds": 200}).value == 0.01
	asked(0, {}, {"seconds": 140}).value == 0.01
	asked(0, {}, {"place": 0}).value == 2
	asked(0, {}, {"place": 3}).value == 0.5
}
