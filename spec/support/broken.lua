-- A module for specs that does not load.
error "broken on purpose"
