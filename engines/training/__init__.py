"""What only a training does: its phases, seeds of epochs, batches of instances, random transforms on the device."""
