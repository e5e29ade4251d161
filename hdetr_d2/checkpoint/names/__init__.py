"""Names of other projects, to and from ours: a table for each model, in the order of the models' descent."""
