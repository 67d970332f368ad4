"""The generated corpus of Budgie: endless conversations from phrases, slots and a random seed."""

from parley.budgie.corpus.dialogues import Conversation, conversations, normalise
from parley.budgie.corpus.skills import Turn

__all__ = ["Conversation", "Turn", "conversations", "normalise"]
