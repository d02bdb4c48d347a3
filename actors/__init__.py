"""The roles of a run as plain classes, and the groups that host them inline or as Ray actors."""
