"""Makes the start of the processes that tests start shorter: Python imports this module where its folder is in PYTHONPATH.

All that imports make stays, and torch and transformers make a million objects. By default the garbage collector would look
through them a thousand times, which takes a fifth of the time of such imports.
"""

import gc

gc.set_threshold(1_000_000)
