"""routelearn decides for each query whether a cheap language model is good enough.

Example:
    >>> import routelearn
    >>> router = routelearn.load("router/")  # verifies the bundle; needs no torch
    >>> router.route("Prove that 2 is prime.").source
    'learned'
    >>> safe = routelearn.FallbackRouter("no-such-folder/", strong="gpt-4o", weak="gpt-4o-mini")  # always answers
    >>> safe.route("Hello!").model
    'gpt-4o-mini'

The names that every user meets are here. The others are in their rooms: `routelearn.routers`, `.policies`, `.cascade`,
`.availability`, `.monitoring`, `.data`, `.training`, `.evaluation`, `.service`. A name is imported when it is first
used, so that importing routelearn imports neither torch nor onnxruntime.
"""

import os

from .routers.public_names import public_names

# Libraries underneath send usage data unless they are told not to: onnxruntime writes a device id and a queue of events
# below HOME. Each reads its variable when it is imported. Who sets a variable decides.
for _name, _off in {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}.items():
    os.environ.setdefault(_name, _off)

__version__ = "0.1.0"

__getattr__, __dir__ = public_names(__name__, __file__)
