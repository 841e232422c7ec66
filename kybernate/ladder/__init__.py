"""
Whole checkpoints of format v1, in and between stores.

    writing.Writing     files -> named, sealed chunks -> packs -> a store; the manifest last
    reading.opened      a signed manifest; `extract` has its files back, every chunk checked
    copying.copy        from one store to another: what is there already is not moved again
    keyring.KeyRing     domain keys: made, opened, wrapped anew
    plain               format v0 in an agent's folder, to and from
    carrying.carry      of an agent's folder into a store, as the very checkpoint it is
    publishing.publish  a manifest, put so that no collector takes what it names
    collecting          what no manifest names goes, after a grace time

Called by: `kyb`, agents. Rule: stages overlap and memory is bounded, whatever the size; the bounds
are beside each pipeline. Rule: everything can be ended by an event, and done again: what is in a
store already is found there.
"""
