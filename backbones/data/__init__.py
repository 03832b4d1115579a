"""Classification data for pretraining: readers, exact geometry of crops, loading.

A reader can be in any module of this folder: the registry `samples.DATASETS` imports all of them on its first look-up.
"""
