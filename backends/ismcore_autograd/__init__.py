"""The HIPS-autograd backend of ismcore."""
