"""The command line as a module, which `fork_part` can start: `python -m tests.worker.secateur_command …`."""

from secateur.cli import main

if __name__ == "__main__":
    main()
