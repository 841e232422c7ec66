# METADATA
# title: Placement
# description: |
#   On which classes of nodes may a workload run, and at what penalty in seconds? Rules are data.
#   A node that is not known to be healthy is denied; where no rule speaks, placement is free.
# custom:
#   reasons:
#     Unhealthy: the nodes are not known to be healthy
#   reasons_also_from: data.kyb.settings.placement.rules[].deny
# schemas:
#   - input: schema.placement
#   - data.kyb.settings.placement: schema.settings.placement
package kyb.placement

import data.kyb.settings

# METADATA
# title: Verdict
# description: The entry point
# entrypoint: true
verdict := {"deny": deny, "penalty_seconds": penalty_seconds}

# METADATA
# description: Class of nodes to reason; the first rule that denies is named
deny[class.id] := _reasons(class)[0] if {
	some class in input.classes
}

# METADATA
# description: Class of nodes to seconds; the rules that speak add up
penalty_seconds[class.id] := total if {
	some class in input.classes
	total := sum([rule.penalty_seconds | some rule in _speaking(class); is_number(rule.penalty_seconds)])
	total != 0
}

_reasons(class) := array.concat(
	["Unhealthy" | not class.healthy == true],
	[rule.deny | some rule in _speaking(class)],
)

_speaking(class) := [rule | some rule in settings.placement.rules; _speaks(rule, class)]

# A rule speaks when all that it names holds; what it does not name holds always.
_speaks(rule, class) if {
	_named(rule, "classes", input.class)
	_named(rule, "namespaces", input.namespace)
	_named(rule, "resources", input.resource)
	_below(rule, input.priority)
	_product(rule, class.product)
	every label, values in object.get(rule, "labels", {}) {
		class.labels[label] in values
	}
}

_named(rule, name, _) if not rule[name]

_named(rule, name, value) if value in rule[name]

_below(rule, _) if not rule.priority_below

_below(rule, priority) if priority < rule.priority_below

_product(rule, _) if not rule.products

_product(rule, product) if {
	some part in rule.products
	contains(product, part)
}
