"""Methods: what becomes of the label during pretraining.  One class each, in `backbones.methods.base.METHODS`.

A method is found in any module of this folder: the registry imports them all when it is first asked.  This package
imports none of them, so that `functional` and `tables` cost their users nothing else.
"""
