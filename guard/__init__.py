"""Mailward: counts every failed login on a mail host exactly once, and bans who guesses passwords."""
