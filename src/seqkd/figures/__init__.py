"""What is drawn; wants matplotlib."""
