"""Ball screws, pitted or not: a small fully convolutional network on real photographs."""
