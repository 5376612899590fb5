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

from .routers.public_names import public_names

__version__ = "0.1.0"

__getattr__, __dir__ = public_names(__name__, __file__)
