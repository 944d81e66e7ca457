"""Importing this runs the small comparison once, so that processes forked afterwards have all modules loaded."""

from small_comparison import small_comparison

small_comparison(None)
