"""`scenes`: an embedded procedural data set, drawn in seconds and written in the formats of real ones.

Images show pale shapes of twelve classes, which differ in outline only, on dark textured backgrounds.  Each class has
its own background, which it is drawn on with probability `correlation`: an easy shortcut that a classifier can learn
instead of the shape.  Split `val` keeps the correlation, `val_shifted` breaks it.  Every image is a pure function of
(seed, split, index); the bytes of the files also depend on the versions of numpy and OpenCV.
"""
