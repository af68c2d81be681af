"""Exercises: parts of this library with some lines taken out, or with one mistake put in, and checks that mark your answer.

catalogue.py lists them, checks.py has the checks, sheet.py makes the file that you solve, and marking.py prints the marks.
"""
