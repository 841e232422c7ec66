"""
`kyb checkpoint`: asks for a checkpoint, and carries and shows those that are there.

    kyb checkpoint NAME           asks for one (`kyb/requesting.py`)
    export, import, clone         from place to place: `carrying`
    inspect                       what is in one: `inspecting`
    rewrap                        wraps a store's keys anew

A place is an agent's folder (a store that is read here, and what lies there of format v0), a
store's folder, s3://BUCKET/PREFIX, or what another agent lends, peer://HOST:PORT.
"""
