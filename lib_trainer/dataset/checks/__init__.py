"""The folder doctor: what may spoil a result, found before the run. Pure functions from measured pictures to findings.

measure → `Measured`, a few hundred numbers a picture · one module a check → `Finding`s · check_folder streams both.
"""
