"""What keeps count: plain objects with one short lock each; time is passed in."""
