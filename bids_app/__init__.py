"""Tell RRMS from NMOSD by brain FLAIR scans: a BIDS App.

Read the package in this order: ``records`` (the nouns), ``options`` (every tunable), then the pure
science, ``tissue``, ``lesion``, ``normalize``, ``cohort``, ``ranking``, ``kernels``, ``classifier``,
``sweep``, ``evaluation``; then the rims, ``bids``, ``files``, ``engine``, ``figures``, ``report``; and
last the recipes ``participant`` and ``group``, which ``__main__`` calls.
"""

__version__ = "0.1.0"
