"""Tell RRMS from NMOSD by brain FLAIR scans: a BIDS App.

Begin with a recipe, ``participant/recipe`` or ``group/recipe``: each reads as a paragraph, and ``__main__`` calls
it. Then follow what it calls down this list; a room imports only from rooms that stand above it (a test holds that).

- ``errors``, ``words``, ``options``, ``parser``: what can go wrong with its exit code, every tunable with its default,
  and the command line.
- ``files``, ``bids``: the only opener of files; names, queries and the one table of outputs.
- ``records``: every noun that flows. ``machine``: processes, threads, temporary files.
- ``image``, ``lesions``, ``learning``, ``recommended``, ``rivals``: the science, arrays in, arrays out; no disk, no
  clock, no log.
- ``cohort``, ``model``: tables and maps of a data set as arrays; trained models on disk.
- ``drawing``, ``report``: figures and pages.
- ``participant``, ``group``: the recipes. ``phantom``: made-up data sets.
"""

__version__ = "0.1.0"
