"""Policies at work: the rules file read, accounts watched by it, and what follows from what is seen."""
