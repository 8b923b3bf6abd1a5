"""Problem sets: what their notebooks stand on, what students run, and how submissions are graded.

``course`` is imported by the notebooks, ``validate`` is for students, ``release``, ``collect`` and ``grade`` are for
instructors; ``python -m advfeat.classroom`` is the command line of the last four.
"""
