"""Steering: directions for concepts, edits that push along them, and the measure of effect and damage."""
