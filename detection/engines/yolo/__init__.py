"""YOLOv3 with a depthwise-separable neck, whose class loss takes hard, smoothed or online-smoothed labels."""
