"""StyleGAN2 with adaptive discriminator augmentation, in plain PyTorch."""
