"""What runs a call: the pipeline a policy is compiled into."""
