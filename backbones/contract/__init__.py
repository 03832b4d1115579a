"""What every registered method must do; `tools/check_method.py` checks a file of your own, the tests check ours."""
