"""What every job writes about itself: its record, with settings, code, inputs and outputs."""
