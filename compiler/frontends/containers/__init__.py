"""Looking into the files of other frameworks without running them and without their frameworks.

Each module reads one kind of container and answers in plain values; `archives` and `pickles` say
whether one may be opened at all. Nothing here executes what a file says, extracts an archive to
disk, or allocates what a file merely claims.
"""
