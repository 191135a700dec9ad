"""The two methods of pose estimation, behind one interface."""
