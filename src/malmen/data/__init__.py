"""Edit tuples: where they come from (the synthetic world, real files) and the one schema in which all of them end."""
