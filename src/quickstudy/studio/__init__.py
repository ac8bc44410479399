"""The studio: a page on which a person shows a robot a task with the mouse, and watches it learn."""
