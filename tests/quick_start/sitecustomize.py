"""Makes the processes that tests start quicker: Python imports this module where its folder is in PYTHONPATH.

All that imports make stays, and torch and transformers make a million objects. By default the garbage collector would look
through them a thousand times, which takes a fifth of the time of such imports.
The disk is not waited for, as in conftest.py.
"""

import gc
import os

gc.set_threshold(1_000_000)
os.fsync = lambda handle: None
