"""`python -m routelearn.cli`: the command line, as `python -m routelearn`."""

from .main import main

if __name__ == "__main__":
    main()
