"""`python -m routelearn`: the command line, also under `torchrun -m routelearn`."""

from .cli.main import main

if __name__ == "__main__":
    main()
