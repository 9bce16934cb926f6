"""What a user declares: the parts of a policy, checked when they are made."""
