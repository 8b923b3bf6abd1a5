# Settings of nbgrader for the folder of a class, where `make assignments` puts a copy of this file. With it, nbgrader's
# own pages (`jupyter lab`, "Formgrader") show the class's submissions and take marks for written answers.
# Do not call `nbgrader autograde` yourself: it runs submissions without limits. `make grade` runs them with.
c = get_config()  # noqa: F821
c.CourseDirectory.root = "."
c.CourseDirectory.course_id = "advfeat"
c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE\nraise NotImplementedError()"}
