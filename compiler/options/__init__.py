"""The options that several verbs share, and what becomes of their values.

A verb takes them all as `**rest`; the function beside the options (`limit_options`, `limits_of`)
makes of it what the driver takes.
"""
