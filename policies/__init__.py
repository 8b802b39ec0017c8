"""What a subscriber may use follows the balance: rules as data, and what they come to for one account at one moment."""
