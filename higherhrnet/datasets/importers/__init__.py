"""Labels of other tools → images, COCO-format JSON and a skeleton."""
