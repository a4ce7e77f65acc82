"""What drives a leg: in this process, or on Inngest."""
