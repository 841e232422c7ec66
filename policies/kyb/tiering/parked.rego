# METADATA
# title: Parked
# description: |
#   In which tier are a parked workload's contents? RAM that nobody needs is used. They leave it for
#   whoever is to be parked, the least valuable first, and when they were there for long and RAM is
#   scarce. They come back before they are asked for: the next in line, and who is asked for about
#   this often, as far as there is room. Between NVMe and object storage it is alike: they go on for
#   whoever has to leave RAM, or when they lay there for long and NVMe is scarce. What cannot be read
#   leaves them where they are.
# schemas:
#   - input: schema.tiering
#   - data.kyb.settings.tiering: schema.settings.tiering
package kyb.tiering.parked

import data.kyb.settings
import data.kyb.terms

# METADATA
# title: Verdict
# description: Of kyb.tiering, about a parked workload
verdict := {"tier": _tier, "reason": _reason, "after_seconds": _after_seconds, "value": _value}

_reason := _in_ram if {
	input.parked.tier == "ram"
} else := _on_nvme if {
	input.parked.tier == "nvme"
} else := _in_object if {
	input.parked.tier == "object"
}

_tier := _above if {
	input.parked.tier == "object"
	_reason in {"Next", "Expected"}
} else := "ram" if {
	_reason in {"NoNvmeRoom", "Waits", "RamIsFree", "ParkedLately", "Next", "Expected"}
} else := "object" if {
	_reason in {"NvmeNeeded", "LongOnNvme"}
} else := "nvme" if {
	_reason in {"ParkedLong", "RoomNeeded"}
} else := input.parked.tier if {
	_reason
}

_in_ram := "NoNvmeRoom" if {
	not _nvme_room
} else := "RoomNeeded" if {
	input.parked.ram_short > 0
} else := "Waits" if {
	is_number(input.parked.place)
} else := "RamIsFree" if {
	not _scarce
} else := "ParkedLately" if {
	not _long
} else := "ParkedLong"

_on_nvme := "NvmeNeeded" if {
	input.parked.nvme_short > 0
	_object_room
} else := "LongOnNvme" if {
	_store_left <= 0
	_nvme_scarce
	_object_room
	not is_number(input.parked.place)
	not _due
} else := "NoRamRoom" if {
	not _ram_room
} else := "RoomNeeded" if {
	input.parked.ram_short > 0
} else := "Next" if {
	_next
} else := "Expected" if {
	_expected
} else := "NotExpected"

_in_object := "NotExpected" if {
	not _next
	not _due
} else := "NoRoomAbove" if {
	not _above
} else := "Next" if {
	_next
} else := "Expected"

# RAM where it may stay, else NVMe.
_above := "ram" if {
	_ram_room
	input.parked.ram_short == 0
	_may_be_in_ram
} else := "nvme" if {
	_nvme_room
	input.parked.nvme_short == 0
	_may_be_on_nvme
}

_may_be_in_ram if _next

_may_be_in_ram if _expected

_may_be_on_nvme if _next

_may_be_on_nvme if input.parked.nvme_free - input.workload.vram >= _nvme_kept_free

_object_room if {
	is_number(input.workload.vram)
	input.workload.vram <= input.parked.object_free
}

_nvme_kept_free := (input.parked.nvme_capacity * settings.tiering.keep_nvme_free_percent) / 100

_nvme_scarce if input.parked.nvme_free < _nvme_kept_free

_store_left := settings.tiering.store_after_seconds[input.workload.class] - input.parked.seconds

_nvme_room if {
	is_number(input.workload.vram)
	input.workload.vram <= input.parked.nvme_free
}

_ram_room if {
	is_number(input.workload.vram)
	input.workload.vram + input.parked.ram_to_come <= input.ram_free
}

_kept_free := (input.parked.ram_capacity * settings.tiering.keep_ram_free_percent) / 100

_scarce if input.ram_free < _kept_free

_long if _long_left <= 0

_long_left := settings.tiering.demote_after_seconds[input.workload.class] - input.parked.seconds

_next if {
	is_number(input.parked.place) # null compares as less than every number
	input.parked.place < settings.tiering.stage_ahead
}

_due if {
	input.workload.desired == "Auto"
	_expected_left <= 0
}

_expected if {
	_due
	input.ram_free - input.workload.vram >= _kept_free
}

_expected_left := left if {
	terms.duration(input.workload.asked_every_seconds)
	usual := (input.workload.asked_every_seconds * settings.tiering.expect_percent) / 100
	left := usual - input.parked.seconds
}

# When time alone may change the answer; null when only new facts can.
_after_seconds := _long_left if {
	_reason == "ParkedLately"
} else := min(_moments) if {
	count(_moments) > 0
} else := null

_moments contains _expected_left if {
	_reason == "NotExpected"
	_expected_left > 0
}

_moments contains _store_left if {
	input.parked.tier == "nvme"
	_nvme_scarce
	_store_left > 0
}

# Seconds that having it in RAM is likely to save, for each second it is there: what a reload costs,
# by how often it is asked for. Who waits is asked for as soon as its turn comes; who was not asked
# for longer than usual is asked for less often than it was.
_value := input.parked.fetch_seconds / _every

_every := 1 + input.parked.place if {
	is_number(input.parked.place)
} else := max([1, input.parked.seconds, input.workload.asked_every_seconds]) if {
	terms.duration(input.workload.asked_every_seconds)
} else := 60 + input.parked.seconds
