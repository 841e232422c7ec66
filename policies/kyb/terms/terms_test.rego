package kyb.terms_test

import data.kyb.terms

settings := {
	"classes": {
		"batch": {"slice_seconds": 120, "min_runtime_seconds": 30, "idle_after_seconds": 10},
		"training": {"slice_seconds": 60, "min_runtime_seconds": "half a minute"},
	},
	"calendar": {"windows": [
		{
			"name": "night", "days": [4], "from": "20:00", "to": "06:30",
			"classes": {"batch": {"slice_seconds": 600}},
		},
		{
			"name": "lunch", "days": [0, 1], "from": "12:00", "to": "13:00",
			"classes": {"batch": {"slice_seconds": 5}},
		},
		{"name": "sunday", "days": [6], "from": "08:00", "to": "08:00", "classes": {"batch": {"slice_seconds": 900}}},
	]},
}

at(weekday, hour, minute) := {"weekday": weekday, "hour": hour, "minute": minute}

batch := {"class": "batch"}

slice_at(calendar) := seconds if {
	seconds := terms.slice(batch, calendar) with data.kyb.settings as settings
}

test_a_class_speaks_where_no_window_is_in_force if {
	slice_at(at(2, 12, 30)) == 120
}

test_a_window_within_a_day_holds_from_its_first_minute_to_before_its_last if {
	slice_at(at(1, 11, 59)) == 120
	slice_at(at(1, 12, 0)) == 30 # never shorter than the minimum runtime
	slice_at(at(1, 12, 59)) == 30
	slice_at(at(1, 13, 0)) == 120
}

test_a_window_over_midnight_belongs_to_the_day_it_begins_on if {
	slice_at(at(4, 19, 59)) == 120
	slice_at(at(4, 20, 0)) == 600
	slice_at(at(5, 6, 29)) == 600
	slice_at(at(5, 6, 30)) == 120
	slice_at(at(5, 20, 0)) == 120
	slice_at(at(4, 3, 0)) == 120
}

test_a_window_that_ends_when_it_begins_lasts_a_day if {
	slice_at(at(6, 7, 0)) == 120
	slice_at(at(6, 8, 0)) == 900
	slice_at(at(0, 7, 59)) == 900
	slice_at(at(0, 8, 0)) == 120
}

test_a_window_whose_hours_cannot_be_read_is_never_in_force if {
	not terms.in_force({"from": "8:00", "to": "20:00", "days": [0]}, at(0, 9, 0))
	not terms.in_force({"from": "08:00", "days": [0]}, at(0, 9, 0))
}

test_a_wish_is_heard_before_the_class if {
	terms.min_runtime({"class": "batch", "min_runtime_seconds": 7}, at(2, 0, 0)) == 7 with data.kyb.settings as settings
	terms.idle_after({"class": "batch", "idle_after_seconds": 0}, at(2, 0, 0)) == 0 with data.kyb.settings as settings
}

test_a_wish_of_null_is_no_wish if {
	terms.min_runtime({"class": "batch", "min_runtime_seconds": null}, at(2, 0, 0)) == 30 with data.kyb.settings as settings
}

test_a_wish_that_cannot_be_read_leaves_it_undefined if {
	not terms.min_runtime({"class": "batch", "min_runtime_seconds": "5m"}, at(2, 0, 0)) with data.kyb.settings as settings
	not terms.min_runtime({"class": "batch", "min_runtime_seconds": -1}, at(2, 0, 0)) with data.kyb.settings as settings
}

test_data_that_cannot_be_read_leave_it_undefined if {
	not terms.min_runtime({"class": "training"}, at(2, 0, 0)) with data.kyb.settings as settings
	not terms.slice({"class": "training"}, at(2, 0, 0)) with data.kyb.settings as settings
	not terms.slice({"class": "gaming"}, at(2, 0, 0)) with data.kyb.settings as settings
	not terms.slice(batch, at(2, 0, 0)) with data.kyb.settings as {}
}

test_a_slice_is_never_shorter_than_the_minimum_runtime if {
	terms.slice({"class": "batch", "min_runtime_seconds": 300}, at(2, 0, 0)) == 300 with data.kyb.settings as settings
}
