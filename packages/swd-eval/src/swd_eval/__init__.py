"""How good generated images and videos are."""
