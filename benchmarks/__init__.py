"""What this project claims about speed, as programs anyone can run; see README.md in this folder."""
