"""Private: when enough images are new; shared by the sensor and the trigger."""
