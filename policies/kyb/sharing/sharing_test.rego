package kyb.sharing_test

import data.kyb.sharing

settings := {"sharing": {"rules": [
	{"namespace": "models", "images": ["llama-*", "phi"], "with": ["team-*", "lab"]},
	{"namespace": "base", "images": ["*"], "with": ["lab"]},
]}}

asked(by, namespace, name) := verdict if {
	question := {"namespace": by, "image": {"namespace": namespace, "name": name}}
	verdict := sharing.verdict with input as question with data.kyb.settings as settings
}

test_what_a_rule_names_is_shared if {
	asked("team-a", "models", "llama-8b") == {"allow": true, "reason": "Shared"}
	asked("lab", "models", "phi").allow
	asked("lab", "base", "anything").allow
}

test_nothing_else_is if {
	asked("team-a", "models", "mixtral") == {"allow": false, "reason": "NotShared"}
	not asked("stranger", "models", "phi").allow
	not asked("team-a", "base", "phi").allow
	not asked("team-a", "models", "phi-secret").allow
	not asked("lab", "other", "phi").allow
}

test_what_is_missing_denies if {
	no_name := {"namespace": "lab", "image": {"namespace": "base"}}
	not sharing.verdict.allow with input as no_name with data.kyb.settings as settings
	nobody := {"image": {"namespace": "base", "name": "phi"}}
	not sharing.verdict.allow with input as nobody with data.kyb.settings as settings
	not asked("", "base", "phi").allow
	not asked(7, "base", "phi").allow
	not sharing.verdict.allow with input as {} with data.kyb.settings as settings
	whole := {"namespace": "lab", "image": {"namespace": "base", "name": "phi"}}
	not sharing.verdict.allow with input as whole with data.kyb.settings as {}
}
