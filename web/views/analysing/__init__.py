"""What pictures hold beyond their embedding: what is looked for, and switched off.

May import whatever ``views`` may.
"""
