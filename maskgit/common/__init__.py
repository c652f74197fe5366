"""The floor under every package: errors, files, downloads, command lines, devices. It imports
none of them."""
