"""Trains networks for `lineside-export fit`; the only folder of the package that holds torch modules and loops."""
