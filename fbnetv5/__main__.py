"""``python -m fbnetv5``, which is also what ``accelerate launch -m fbnetv5 search ...`` runs."""

from fbnetv5.cli import main

if __name__ == "__main__":
    main()
