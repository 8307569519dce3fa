"""What a sweep leaves on disk: rows as Parquet, run folders, finished passes, and the difference of two runs.

`parquet` keeps a `SweepTable` whole, `rundir` gives a run its folder and keeps the runs before it, `cache` lets a sweep
go on where it was killed, `diff` says what changed from one run to another. The rule of the folder: a file is there
whole or not at all, and says of what it was made.
"""
