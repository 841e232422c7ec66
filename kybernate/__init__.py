"""The shared core of Kybernate. No process starts here.

model      what things are: frozen values, standard library only
decisions  what to do: pure functions from a view and a clock value to a plan or a refusal
api        Kubernetes objects and files to model values and back; pure
clients    whom we talk to: the only shared code allowed on the network
artifacts  what checkpoints are made of in a store: codecs, sealing, signing; pure
stores     where objects are kept: RAM, a folder, a bucket, and decorators; one port
ladder     whole checkpoints, in and between stores
runtime    what every process needs to run: settings, logs, metrics, health, clock
testing    shipped fakes and builders

`pyproject.toml` holds the import contracts that keep it so.
"""

__version__ = "0.1.0"
