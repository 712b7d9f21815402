"""The editors: what they cache, how they turn it into shifts, how they are trained and measured."""
