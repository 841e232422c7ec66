"""
What a checkpoint is made of in a store, format v1: docs/reference/checkpoint-format.md. Pure.

    record = keys.new_record("default", secret, wrapping, nonce)       # the domain's key, wrapped
    domain = DomainKey(secret)
    name = domain.name(contents)                                      # what a chunk is called
    pack = Packing(); pack.add(name, contents, domain)                # many of them, one object
    blob = signing.signed(manifests.encode(manifest), private_key)    # the last thing to be written

    content, signature = signing.split(blob)
    signing.check(content, signature, trusted)                        # before anything is parsed
    manifest = manifests.decode(content)                              # safe paths, sane sizes

Called by: the stores and pipelines above it, agents, `kyb`, the registry. Rule: no I/O, no clock,
no randomness: secrets and nonces are arguments. Rule: what is decoded is hostile until checked;
everything that is wrong with it is `Unusable` with a `Flaw`.
"""
