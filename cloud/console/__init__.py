"""The console: pages for the people who operate the fleet and review what was deferred."""
