"""What a picture takes in memory: said beforehand (plan), counted (tracking), and kept small (offload)."""
