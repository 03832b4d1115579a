"""Which errors a detector makes, from matches.npz, on the same resamples of images as the verdict.

All are pure functions of matches and weights of images, with the resamples as their first axis; `intervals` makes the
weights and turns the numbers into intervals.
"""
