"""Start of the clock: `python -m worker.dispatcher`."""

import gc

if __name__ == "__main__":
    gc.disable()  # what is imported stays, and looking through it again and again would be a third of the start
    from worker.dispatcher.clock import main

    gc.freeze()
    gc.enable()
    main()
