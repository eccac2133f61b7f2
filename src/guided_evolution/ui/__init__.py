"""The dashboard behind `ge ui`: server-rendered pages that read the records of runs, and change nothing.

`server` binds and serves, `guard` decides who may ask, `library` finds and opens runs, `pages` and
`individual_page` answer, `templating` turns values into text that can't become markup. All that a browser loads
comes from this machine.
"""
