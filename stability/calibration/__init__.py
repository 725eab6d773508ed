"""Step-time laws and length distributions from measurements, with what they leave uncertain."""
