"""Classification data for pretraining: readers, exact geometry of crops, loading.

A reader is found in any module of this folder: the registry `samples.DATASETS` imports them all when it is first asked.
"""
