"""Entry point of the clock: `python -m worker.dispatcher`."""

import gc

if __name__ == "__main__":
    gc.disable()  # imported objects are never freed, and repeated collections would take a third of the start
    from worker.dispatcher.clock import main

    gc.freeze()
    gc.enable()
    main()
