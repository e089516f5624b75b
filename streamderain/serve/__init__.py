"""Run the cameras of a site: a process for each, a page, metrics."""
