"""`python -m quickstudy` is the command `quickstudy`."""

import signal


def run() -> None:
    """The command line; `quickstudy.cli.main` takes Ctrl-C over, and once it is done there is nothing to end well."""
    from quickstudy.cli import main

    try:
        main()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    run()
