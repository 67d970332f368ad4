"""The generated corpus of Budgie: endless conversations from phrases, slots and a random seed."""

from training.corpus.dialogues import Conversation, conversations, normalise
from training.corpus.skills import Turn

__all__ = ["Conversation", "Turn", "conversations", "normalise"]
