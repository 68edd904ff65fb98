"""What is known of models before they are loaded, and before torch is imported."""
