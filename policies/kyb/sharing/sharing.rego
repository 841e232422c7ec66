# METADATA
# title: Sharing
# description: |
#   May pods of a namespace wake from a gold image of another? Denied unless data shares it, so that
#   missing data denies. A namespace's own images are its own: nobody asks about them.
# custom:
#   reasons:
#     Shared: a rule of sharing.json names the image and the namespace
#     NotShared: none does
# schemas:
#   - input: schema.sharing
#   - data.kyb.settings.sharing: schema.settings.sharing
package kyb.sharing

import data.kyb.settings

# METADATA
# title: Verdict
# description: The entry point
# entrypoint: true
verdict := {"allow": true, "reason": "Shared"} if {
	_shared
} else := {"allow": false, "reason": "NotShared"}

_shared if {
	some rule in settings.sharing.rules
	rule.namespace == input.image.namespace
	_any(rule.images, input.image.name)
	_any(rule.with, input.namespace)
}

# Of names with `*` for any part; what is no name matches nothing.
_any(patterns, name) if {
	is_string(name)
	name != ""
	some pattern in patterns
	glob.match(pattern, [], name)
}
