"""What the modalities RGB, Flow and RGBDiff are made of."""

MODALITIES = ("RGB", "Flow", "RGBDiff")
