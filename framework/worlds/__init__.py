"""Where prompts and texts come from: an embedded world that is made here, or tables of real text."""

from typing import Annotated

from pydantic import Field

from framework.data.text import Text
from framework.worlds.reviews import Reviews

World = Annotated[Reviews | Text, Field(discriminator="kind")]

__all__ = ["Reviews", "Text", "World"]
