"""Tell RRMS from NMOSD by brain FLAIR scans: a BIDS App.

Read the package in this order: ``records`` (the nouns), ``options`` (every tunable), then the pure
science, ``tissue``, ``lesion``, ``normalize``, ``cohort``, ``ranking``, ``kernels``, ``classifier``,
``sweep``, ``evaluation``; then the rims, ``bids``, ``files``, ``marks``, ``engine``, ``figures``, ``report``; and
last the recipes: ``chain`` (the science of one scan), ``worker`` (one scan from file to derivatives),
``participant`` and ``group``, which ``__main__`` calls.
"""

__version__ = "0.1.0"
