"""The demo: a made-up clinic whose week is written through the ordinary doors, and which lives on while it runs.

`clinic` says what its series are worth at any time; `story` writes its rows and its past; `role` is the process that
lets it live on. Only `./portal run --demo` gets here, over a data folder of its own.
"""
