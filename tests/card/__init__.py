"""What only a card can show, in nine minutes: see README.md here."""
