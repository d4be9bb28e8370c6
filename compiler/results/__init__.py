"""What the verbs print: a document for machines, a text for people.

The document always has the same keys for a verb; the text may hold ANSI styles, which are taken
out where standard output is not a terminal.
"""
