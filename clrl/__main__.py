"""`python -m clrl` is `clrl`."""

from clrl.cli import main

if __name__ == "__main__":
    main()
