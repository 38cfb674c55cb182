"""Internal Diverse Completion: a pyramid of small GANs, trained on one picture's known part."""
