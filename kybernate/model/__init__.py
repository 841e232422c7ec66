"""What things are: frozen values and enums, standard library only. Everybody may import them."""
