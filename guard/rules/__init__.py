"""One detection a file; the docstring of the rule's class is its manual page."""
