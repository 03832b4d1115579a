"""Methods: how labels are made during pretraining.  One class each, registered in `backbones.methods.base.METHODS`.

A method can be in any module of this folder: the registry imports all of them on its first use.  This package itself
imports none, so that importing `functional` or `tables` loads nothing else.
"""
