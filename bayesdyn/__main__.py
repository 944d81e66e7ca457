"""`python -m bayesdyn` is the command `bayesdyn`."""

from bayesdyn.cli import main

if __name__ == "__main__":
    main()
