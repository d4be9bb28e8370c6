"""What runs on the device that an engine is for, out of a deferred bundle.

    hashes -> library, GPU -> build -> verify -> complete the bundle

`python3 -m finishing` in a bundle is this package, copied verbatim: the standard library of Python
3.8 and the library that builds the engine, nothing else. `infc finish` runs the same files, in a
worker or on another machine.
"""
