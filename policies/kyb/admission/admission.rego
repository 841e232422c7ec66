# METADATA
# title: Admission
# description: |
#   May a pod have its seat, and what is it given that it does not say itself? Each rule denies
#   unless the opposite can be shown, so that missing data denies.
# custom:
#   reasons:
#     ClassNotAllowed: the namespace's quota does not name the pod's class
#     SeatQuota: the namespace has used its seats of this size, or nobody counted them
#     VramAbsurd: no group of this size can have that much VRAM, or it was meant in other units
#     MinRuntimeTooLong: the pod asks for more undisturbed time than its class may have
# schemas:
#   - input: schema.admission
#   - data.kyb.settings.admission: schema.settings.admission
#   - data.kyb.settings.quotas: schema.settings.quotas
#   - data.kyb.settings.ignored: schema.settings.ignored
#   - data.kyb.settings.classes: schema.settings.classes
package kyb.admission

import data.kyb.settings
import data.kyb.terms

# METADATA
# title: Verdict
# description: The entry point
# entrypoint: true
verdict := {"deny": set(), "defaults": {}} if {
	_ignored
} else := {"deny": deny, "defaults": defaults}

_ignored if input.namespace in settings.ignored.namespaces

# METADATA
# title: Class not allowed
# description: Denied unless the namespace's quota names the pod's class
deny contains {"reason": "ClassNotAllowed", "message": message} if {
	not _class_allowed
	message := sprintf("namespace %v may not run class %v", [_namespace, _shown_class])
}

_class_allowed if _class in _quota("classes")

# METADATA
# title: Seat quota
# description: Denied where the namespace has a limit for this size and cannot be seen to be below
deny contains {"reason": "SeatQuota", "message": message} if {
	not _seats_left
	message := sprintf("namespace %v has no seat left of %v", [_namespace, _resource])
}

_seats_left if object.get(_quota("seats"), input.resource, null) == null

_seats_left if {
	limit := _quota("seats")[input.resource]
	is_number(limit)
	object.get(input.seats_used, input.resource, 0) < limit
}

# METADATA
# title: VRAM absurd
# description: Denied where the need is below what any model has, or above what such a group can have
deny contains {"reason": "VramAbsurd", "message": message} if {
	not _vram_sensible
	message := sprintf("kyb.ai/vram of %v bytes is not between %v and %v a GPU", [
		object.get(input, "vram", "unknown"),
		object.get(settings, ["admission", "vram_min"], "unknown"),
		object.get(settings, ["admission", "vram_max_per_gpu"], "unknown"),
	])
}

_vram_sensible if input.vram == null

_vram_sensible if {
	is_number(input.vram)
	input.vram >= units.parse_bytes(settings.admission.vram_min)
	input.vram <= _gpus * units.parse_bytes(settings.admission.vram_max_per_gpu)
}

# kyb.ai/gpu-2x-seat is a seat on two GPUs.
_gpus := to_number(trim_suffix(trim_prefix(input.resource, "kyb.ai/gpu-"), "x-seat"))

# METADATA
# title: Minimum runtime too long
# description: Denied where the wish exceeds what the pod's class may have
deny contains {"reason": "MinRuntimeTooLong", "message": message} if {
	not _min_runtime_sensible
	message := sprintf("kyb.ai/min-runtime of %v s is more than class %v may have", [
		object.get(input, "min_runtime_seconds", "unknown"),
		_shown_class,
	])
}

_min_runtime_sensible if input.min_runtime_seconds == null

_min_runtime_sensible if {
	terms.duration(input.min_runtime_seconds)
	terms.duration(settings.classes[_class].min_runtime_max_seconds)
	input.min_runtime_seconds <= settings.classes[_class].min_runtime_max_seconds
}

# METADATA
# title: Defaults
# description: |
#   Annotation to value, for those named in `stamped` that the pod does not say. What is not
#   stamped is read from data at each decision, so that it can be changed under running pods.
defaults[name] := value if {
	some name in settings.admission.stamped
	not name in object.keys(_annotations)
	value := _default(name)
}

_default("kyb.ai/class") := _class

_default("kyb.ai/on-delete") := settings.classes[_class].on_delete

_default("kyb.ai/min-runtime") := sprintf("%vs", [settings.classes[_class].min_runtime_seconds])

_default("kyb.ai/idle-after") := sprintf("%vs", [settings.classes[_class].idle_after_seconds])

_class := object.get(_annotations, "kyb.ai/class", _quota("default_class"))

_annotations := input.pod.metadata.annotations if {
	is_object(input.pod.metadata.annotations)
} else := {}

# The namespace's own word before the one for all.
_quota(name) := value if {
	value := settings.quotas.namespaces[input.namespace][name]
} else := settings.quotas["default"][name]

# What messages show when it cannot be read.
_namespace := object.get(input, "namespace", "unknown")

_resource := object.get(input, "resource", "unknown")

_shown_class := class if {
	class := _class
} else := "unknown"
