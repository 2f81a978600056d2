"""Start of the clock: `python -m worker.dispatcher`."""

from worker.dispatcher.clock import main

if __name__ == "__main__":
    main()
