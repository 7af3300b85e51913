"""What everything stands on: errors, files, devices, settings, processes."""
