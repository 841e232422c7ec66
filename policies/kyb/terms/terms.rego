# METADATA
# title: Terms
# description: |
#   How long a tenant may stay, and what its class is allowed. A window of the calendar that is in
#   force speaks before the class; a pod's own wish before both. What cannot be read is undefined,
#   and whoever asked protects.
# schemas:
#   - data.kyb.settings.calendar: schema.settings.calendar
#   - data.kyb.settings.classes: schema.settings.classes
package kyb.terms

import data.kyb.settings

# METADATA
# description: A setting of a class, as it stands at this hour
setting(class, name, calendar) := array.concat(
	_windows_say(class, name, calendar),
	_class_says(class, name),
)[0]

_windows_say(class, name, calendar) := [value |
	some window in settings.calendar.windows
	in_force(window, calendar)
	value := window.classes[class][name]
]

_class_says(class, name) := [value | value := settings.classes[class][name]]

# METADATA
# description: A setting that is a number of seconds
seconds(class, name, calendar) := value if {
	value := setting(class, name, calendar)
	duration(value)
}

# METADATA
# description: Strings compare as greater than numbers, so nothing is compared before this holds
duration(value) if {
	is_number(value)
	value >= 0
}

# METADATA
# description: Seconds a tenant runs undisturbed once it has the GPU
min_runtime(tenant, calendar) := _wish_or_class(tenant, "min_runtime_seconds", calendar)

# METADATA
# description: Seconds without work after which a tenant counts as idle
idle_after(tenant, calendar) := _wish_or_class(tenant, "idle_after_seconds", calendar)

# METADATA
# description: Seconds of one turn. Never shorter than the minimum runtime, which bounds every wait
slice(tenant, calendar) := max([
	seconds(tenant.class, "slice_seconds", calendar),
	min_runtime(tenant, calendar),
])

_wish_or_class(tenant, name, calendar) := wish if {
	wish := tenant[name]
	duration(wish)
} else := seconds(tenant.class, name, calendar) if {
	object.get(tenant, name, null) == null
}

# METADATA
# description: |
#   Whether a window of the calendar holds now (UTC). One that passes midnight belongs to the day
#   it begins on; one that ends when it begins lasts a day.
in_force(window, calendar) if {
	start := _minute_of_day(window.from)
	end := _minute_of_day(window.to)
	start < end
	now := _now(calendar)
	now >= start
	now < end
	calendar.weekday in window.days
}

in_force(window, calendar) if {
	start := _minute_of_day(window.from)
	start >= _minute_of_day(window.to)
	_now(calendar) >= start
	calendar.weekday in window.days
}

in_force(window, calendar) if {
	end := _minute_of_day(window.to)
	_minute_of_day(window.from) >= end
	_now(calendar) < end
	((calendar.weekday + 6) % 7) in window.days
}

_now(calendar) := (calendar.hour * 60) + calendar.minute

_minute_of_day(text) := (hour * 60) + minute if {
	[hour, minute] := [_two_digits(part) | some part in split(text, ":")]
}

# `08` is no number in JSON, but `108` is.
_two_digits(text) := to_number(concat("", ["1", text])) - 100 if count(text) == 2
