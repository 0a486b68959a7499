"""Time, memory and scores of a fit against the number of its rows."""
