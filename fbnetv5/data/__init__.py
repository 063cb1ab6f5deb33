"""Images with labels of several tasks: the demo scenes, a user's folder, and how both are split and loaded."""
