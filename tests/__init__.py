"""The tests; a package, so that processes which a test starts find it, whatever else is called `tests`."""
