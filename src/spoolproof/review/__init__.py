"""Manual review: questions that software must not decide, answered by people, with the effect in the same commit."""
