"""What happens later: messages that are scheduled, and runs that come again and again."""
