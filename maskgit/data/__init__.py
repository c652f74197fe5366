"""Images for training and editing: Fashion-MNIST, image folders, photos."""
