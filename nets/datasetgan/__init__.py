"""StyleGAN2 with adaptive discriminator augmentation, and the classifiers of pixels that label what it makes."""
