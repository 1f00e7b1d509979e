"""What tests of the device stand on: devices with files, and a server that follows a script.

A package of its own name, beside `tests`: the server's tests are a `tests` too, in one run.
"""
