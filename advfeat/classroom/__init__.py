"""Problem sets: the library behind their notebooks, the students' check, and the grading of submissions.

The notebooks import ``course``; ``validate`` is for students; ``release``, ``collect`` and ``grade`` are for
instructors. ``python -m advfeat.classroom`` is the command line of all but ``course``.
"""
