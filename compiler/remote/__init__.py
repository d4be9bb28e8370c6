"""Building on another machine, over OpenSSH: nothing is there but Python 3 and the library.

    ssh -> far side: look around -> send what is not there -> build, verify -> fetch -> remove
"""
